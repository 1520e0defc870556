import os
import stat
from pathlib import Path

from edgeserve.security.tokens import read_api_keys, read_token
from tests.fakes.terminal import Terminal


def test_a_new_token_is_where_node_and_balancer_look(edgeserve: Terminal) -> None:
    seen = edgeserve("token", "new")

    token = read_token(None)
    assert seen.status == 0
    assert token
    assert token not in seen.out


def test_only_the_owner_can_read_a_secret(edgeserve: Terminal, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        edgeserve("token", "new", "--file", str(tmp_path / "deep" / "token"))
    finally:
        os.umask(before)

    mode = (tmp_path / "deep" / "token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["token"]


def test_a_token_is_not_overwritten_by_accident(edgeserve: Terminal) -> None:
    edgeserve("token", "new")
    before = read_token(None)

    refused = edgeserve("token", "new")
    kept = read_token(None)
    forced = edgeserve("token", "new", "--force")

    assert (refused.status, forced.status) == (1, 0)
    assert "--force" in refused.err
    assert kept == before != read_token(None)


def test_keys_are_added_to_a_plain_file_and_each_is_printed_once(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    file = str(tmp_path / "keys")
    first = edgeserve("key", "new", "--name", "laptop", "--file", file)
    second = edgeserve("key", "new", "--name", "phone", "--file", file)

    keys = read_api_keys(tmp_path / "keys")
    assert keys == (first.out.strip(), second.out.strip())


def test_a_name_has_one_key_in_a_plain_file(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    file = str(tmp_path / "keys")
    edgeserve("key", "new", "--name", "laptop", "--file", file)

    seen = edgeserve("key", "new", "--name", "laptop", "--file", file)

    assert seen.status == 1
    assert "'laptop'" in seen.err


def test_a_folder_that_cannot_be_made_is_one_sentence(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    seen = edgeserve("token", "new", "--file", str(tmp_path / "file" / "token"))

    assert seen.status == 1
    assert seen.err.startswith(f"edgeserve: cannot write {tmp_path}")

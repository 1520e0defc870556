"""`edgeserve key` and `edgeserve usage` at a terminal."""

import json
import time
from pathlib import Path

import pytest

from balancer.clients.keys import key_id
from balancer.clients.store import all_keys, store_in
from edgeserve.cli.keys import expiry
from edgeserve.cli.secrets import add_key as add_to_file
from edgeserve.config.paths import config_dir, state_dir
from edgeserve.errors import SettingsError
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes.endpoint import fake_endpoint
from tests.fakes.terminal import Terminal

ROWS = [
    {
        "key": "laptop",
        "model": "small",
        "day": "2026-11-28",
        "requests": 3,
        "prompt_tokens": 1200,
        "cached_tokens": 800,
        "answer_tokens": 77,
    }
]


def test_a_key_is_shown_once_and_only_its_hash_is_kept(edgeserve: Terminal) -> None:
    seen = edgeserve("key", "new", "--name", "laptop")

    secret = seen.out.strip()
    (key,) = all_keys(store_in(state_dir()))
    assert seen.status == 0
    assert secret.startswith("key-")
    assert (key.id, key.name, key.admin) == (key_id(secret), "laptop", False)
    assert secret not in edgeserve("key", "list", "--json").out
    assert "first key" in seen.err
    assert "first key" not in edgeserve("key", "new").err


def test_a_key_beside_a_file_of_keys_is_not_called_the_first(
    edgeserve: Terminal,
) -> None:
    add_to_file(config_dir() / "api-keys", "household")  # as `up --lan` does
    seen = edgeserve("key", "new", "--name", "guest")

    assert seen.status == 0
    assert "first key" not in seen.err


def test_limits_are_shown_and_changed_one_by_one(edgeserve: Terminal) -> None:
    limits = ("--tokens-per-minute", "2000", "--model", "small", "--expires", "30d")
    edgeserve("key", "new", "--name", "guest", *limits)
    shown = edgeserve("key", "list").out

    done = edgeserve("key", "limit", "guest", "--at-once", "2", "--priority", "-1")
    back = edgeserve("key", "limit", "guest", "--model", "*", "--expires", "never")

    assert "guest" in shown
    assert "2000" in shown
    assert (done.status, back.status) == (0, 0)
    (key,) = json.loads(edgeserve("key", "list", "--json").out)
    assert key == key | {
        "tokens_per_minute": 2000,
        "at_once": 2,
        "priority": -1,
        "models": [],
        "expires": None,
        "revoked": None,
    }


def test_a_revoked_key_is_listed_in_json_only(edgeserve: Terminal) -> None:
    edgeserve("key", "new", "--name", "guest")

    assert edgeserve("key", "revoke", "guest").status == 0

    assert "guest" not in edgeserve("key", "list").out
    (key,) = json.loads(edgeserve("key", "list", "--json").out)
    assert key["revoked"] <= time.time()
    again = edgeserve("key", "revoke", "guest")
    assert again.status == 1
    assert "edgeserve key list" in again.err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("new", "--name", "anonymous"), 2, "without a key"),
        (("new", "--name", "a\nb"), 2, "no name for a key"),
        (("new", "--name", "x" * 65), 2, "64"),
        (("new", "--at-once", "-1"), 2, "--at-once"),
        (("new", "--expires", "soon"), 2, "30d"),
        (("new", "--expires", "2001-01-01"), 2, "which is over"),
        (("new", "--file", "keys", "--admin"), 2, "omit --file"),
        (("limit", "guest"), 2, "nothing to change"),
        (("limit", "guest", "--at-once", "1"), 1, "no key named 'guest'"),
        (("revoke", "guest"), 1, "no key named 'guest'"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    edgeserve: Terminal, arguments: tuple[str, ...], status: int, says: str
) -> None:
    seen = edgeserve("key", *arguments)

    assert (seen.status, says in seen.err) == (status, True), seen
    assert not store_in(state_dir()).exists()


def test_a_name_has_one_key(edgeserve: Terminal) -> None:
    edgeserve("key", "new", "--name", "laptop")

    seen = edgeserve("key", "new", "--name", "laptop")

    assert (seen.status, "'laptop'" in seen.err) == (1, True)


def test_another_state_folder_is_named(edgeserve: Terminal, tmp_path: Path) -> None:
    edgeserve("key", "new", "--name", "laptop", "--state-dir", str(tmp_path / "its"))

    assert [key.name for key in all_keys(store_in(tmp_path / "its"))] == ["laptop"]


@pytest.mark.parametrize("way", [each for each in EVERY_WAY if each != "missing"])
def test_a_damaged_file_is_named_and_left_alone(edgeserve: Terminal, way: str) -> None:
    edgeserve("key", "new", "--name", "laptop")
    path = store_in(state_dir())
    damage(path, way)

    for arguments in (("new",), ("list",), ("revoke", "laptop")):
        seen = edgeserve("key", *arguments)
        if way == "cut" and seen.status == 0:
            continue  # what was cut off was not needed
        assert seen.status == 1
        assert f"cannot use {path}" in seen.err


@pytest.mark.parametrize(
    ("text", "at"), [("12h", 43_200.0), ("2m", 120.0), ("1w", 604_800.0)]
)
def test_a_time_is_counted_from_now(text: str, at: float) -> None:
    assert expiry(text, 0.0) == at


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "9999999d", "30", "d", "99999-01-01"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        expiry(text, 0.0)


def test_usage_is_a_table_or_json(edgeserve: Terminal) -> None:
    with fake_endpoint(
        {
            "/edgeserve/v1/usage?days=30": ROWS,
            "/edgeserve/v1/usage?days=7&key=my+phone": [],
        }
    ) as running:
        table = edgeserve("usage", "--url", running.url)
        as_json = edgeserve("usage", "--json", "--url", running.url)
        none = edgeserve(
            *("usage", "--days", "7", "--key", "my phone"), "--url", running.url
        )

    head, row = table.out.splitlines()
    assert head.split() == [
        *("key", "model", "day", "requests"),
        *("prompt", "cached", "answer"),
    ]
    assert row.split() == ["laptop", "small", "2026-11-28", "3", "1200", "800", "77"]
    assert json.loads(as_json.out) == ROWS
    assert "nothing was used in 7 days" in none.err

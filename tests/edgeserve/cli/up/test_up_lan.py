"""What `edgeserve up --lan` makes once, prints, and passes on to node and balancer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balancer.clients.keys import ClientKey
from balancer.clients.store import add_key, store_in
from edgeserve.cli.up.lan import LanWelcome, lan_url, make_secrets
from edgeserve.cli.up.plan import planned
from edgeserve.cli.up.qr import COLOURS, PLAIN, fits, qr_lines
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import SettingsError

KEY = "key-of-the-household"
MODEL = {"id": "small", "abilities": ["chat"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def made(home: Path, **changes: object) -> list[str]:
    balancer = replace(BalancerSettings(state_dir=home / "state"), **changes)  # type: ignore[arg-type] # named by the test
    return make_secrets(NodeSettings(), balancer)


def a_welcome(home: Path, *, shared: bool = True, terminal: bool = True) -> LanWelcome:
    file = home / "api-keys"
    file.write_text(f"# household\n{KEY}\n")
    return LanWelcome(
        url="http://192.168.1.20:8080",
        here="http://127.0.0.1:8080",
        models=[MODEL],
        command="edgeserve",
        key_file=file,
        shared=shared,
        terminal=terminal,
    )


def modules(lines: list[str]) -> list[list[int]]:
    """Read the printed code as a camera does: what is not white is dark."""
    rows = list[list[int]]()
    for line in lines:
        assert line.startswith(COLOURS)
        cells = line.removeprefix(COLOURS).removesuffix(PLAIN)
        rows.append([int(cell in " ▄") for cell in cells])
        rows.append([int(cell in " ▀") for cell in cells])
    return rows


def test_token_and_key_are_made_once(home: Path) -> None:
    first = made(home)
    files = {name: (home / "config" / name) for name in ("token", "api-keys")}
    contents = {name: file.read_bytes() for name, file in files.items()}

    assert len(first) == 2
    assert made(home) == []
    assert {name: file.read_bytes() for name, file in files.items()} == contents
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}


def test_no_key_is_made_where_clients_have_one_or_need_none(home: Path) -> None:
    made(home, anonymous=True)
    add_key(store_in(home / "state"), ClientKey(id="1f", name="laptop"))

    assert made(home) == []
    assert not (home / "config" / "api-keys").exists()


def test_a_node_and_a_balancer_with_two_tokens_are_no_fleet(home: Path) -> None:
    with pytest.raises(SettingsError, match="token_file"):
        made(home, token_file=home / "another")


def test_a_terminal_gets_the_key_and_a_code_that_says_address_and_key(
    home: Path,
) -> None:
    import segno

    text = a_welcome(home).text()

    link = f"http://192.168.1.20:8080/#key={KEY}"
    matrix = segno.make(link, error="l", micro=False).matrix_iter(border=2)
    wanted = [list(row) for row in matrix]
    code = [line for line in text.splitlines() if line.startswith(COLOURS)]
    assert modules(code)[: len(wanted)] == wanted
    assert f"key      {KEY}" in text


def test_what_is_no_terminal_gets_neither_key_nor_code(home: Path) -> None:
    text = a_welcome(home, terminal=False).text()

    assert KEY not in text
    assert "\x1b" not in text
    assert f"key      in {home / 'api-keys'}" in text


def test_the_key_of_this_machine_s_commands_is_never_shown(home: Path) -> None:
    text = a_welcome(home, shared=False).text()

    assert KEY not in text
    assert "edgeserve key new" in text


def test_a_narrow_terminal_gets_no_broken_code(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")

    assert COLOURS not in a_welcome(home).text()
    assert not fits("x", 24)
    assert all(len(line) == 25 + len(COLOURS + PLAIN) for line in qr_lines("x"))


def test_the_lines_for_the_next_machine_name_an_unusual_port_only(home: Path) -> None:
    usual = a_welcome(home).text()
    other = replace(a_welcome(home), here="http://127.0.0.1:9000").text()

    assert "edgeserve nodes approve NAME" in usual
    assert "edgeserve nodes --url http://127.0.0.1:9000 approve NAME" in other
    assert "edgeserve join http://192.168.1.20:8080 && edgeserve node start" in usual


def test_a_balancer_for_loopback_alone_serves_no_network() -> None:
    with pytest.raises(SettingsError, match="loopback"):
        lan_url(BalancerSettings(host="127.0.0.1"), 8080)

    assert lan_url(BalancerSettings(host="10.0.0.9"), 9000) == "http://10.0.0.9:9000"


def test_on_the_lan_the_children_listen_as_settings_and_secrets_say(
    smollm2: Path,
) -> None:
    flags = {
        "models": (str(smollm2),),
        "embedding_models": ("e.gguf",),
        "slots": "3",
        "context": "2048",
    }
    node = resolve(NodeSettings, flags=flags, environ={})
    balancer = resolve(BalancerSettings, flags={"port": 0}, environ={})

    plan = planned(node, balancer, None, None, lan=True)

    assert not {"--host", "--no-advertise", "--no-discover"} & {
        *plan.node,
        *plan.balancer,
    }
    assert "--approve" in plan.balancer
    for flag, value in (
        ("--embedding-model", "e.gguf"),
        ("--slots", "3"),
        ("--context", "2048"),
    ):
        assert plan.node[plan.node.index(flag) + 1] == value

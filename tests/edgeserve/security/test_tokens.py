from pathlib import Path

import pytest

from edgeserve.errors import Forbidden, SettingsError, Unauthorized
from edgeserve.security.proof import fleet_key
from edgeserve.security.tokens import (
    FleetTokens,
    Guard,
    is_loopback,
    read_api_keys,
    read_tokens,
)

SECRET = "a-secret-of-some-length"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://127.evil.example:8080", "null", "http://["],
)
def test_without_secrets_a_web_page_of_another_site_is_refused(origin: str) -> None:
    with pytest.raises(Forbidden, match="a web page"):
        Guard([], "API key").check({"origin": origin})


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://[::1]", "app://chat", "vscode-file://x"]
)
def test_without_secrets_a_program_and_a_page_of_this_machine_are_let_in(
    origin: str,
) -> None:
    assert Guard([], "API key").check({"origin": origin}) is None
    assert Guard([], "API key").check({}) is None


def test_a_web_page_with_a_secret_is_let_in() -> None:
    page = {"origin": "https://chat.example"}

    shown = Guard([SECRET], "API key").check({**page, "x-api-key": SECRET})

    assert shown == SECRET
    with pytest.raises(Unauthorized):
        Guard([SECRET], "API key").check(page)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_these_reach_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.example.org", "0.0.0.0", "10.0.0.1", "", "nuc"])
def test_these_may_reach_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("named", ["https://chat.example", "*"])
def test_a_site_that_was_named_may_ask_without_a_secret(named: str) -> None:
    page = {"origin": "https://chat.example"}

    assert Guard([], "API key", [named]).check(page) is None


def test_an_empty_file_says_what_fills_it(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(SettingsError, match="edgeserve key new"):
        read_api_keys(tmp_path / "empty")
    with pytest.raises(SettingsError, match="edgeserve token new"):
        read_tokens(tmp_path / "empty")


def test_what_cannot_be_read_as_secrets_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^cannot read {tmp_path}: Is a directory"):
        read_api_keys(tmp_path)
    (tmp_path / "image").write_bytes(bytes(range(128, 255)))
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        read_api_keys(tmp_path / "image")


def test_a_token_that_is_replaced_counts_until_its_end(tmp_path: Path) -> None:
    path, now = tmp_path / "token", 1_000_000.0
    path.write_text(f"{SECRET}\n")
    tokens = FleetTokens(path, lambda: now)
    assert tokens.keys() == (fleet_key(SECRET),)

    newer = "a-newer-secret-of-some-length"
    path.write_text(f"{newer}\n# until 1970-01-12T14:00:00+00:00\n{SECRET}\n")
    assert tokens.keys() == (fleet_key(newer), fleet_key(SECRET))
    now += 3600
    assert tokens.keys() == (fleet_key(newer),)


@pytest.mark.parametrize("damage", ["", "\n", "short\n", "\0" * 40, None])
def test_a_token_file_that_is_damaged_later_changes_nothing(
    tmp_path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    tokens = FleetTokens(path)
    path.unlink()
    if damage is not None:
        path.write_text(damage)

    assert tokens.keys() == tokens.keys() == (fleet_key(SECRET),)
    assert caplog.text.count("stay valid") == 1


def test_two_tokens_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n{SECRET}-2\n")
    with pytest.raises(SettingsError, match="several tokens"):
        FleetTokens(tmp_path / "token")


def test_an_old_token_with_a_damaged_end_has_ended(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}-2\n# until soon\n{SECRET}\n")
    assert FleetTokens(tmp_path / "token").keys() == (fleet_key(f"{SECRET}-2"),)

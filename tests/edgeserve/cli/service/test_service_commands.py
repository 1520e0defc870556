"""The commands of `edgeserve service`, with a systemctl of the tests."""

from __future__ import annotations

import pytest

from edgeserve.cli.service import actions
from tests.edgeserve.cli.service.home import Home, a_release
from tests.patience import PATIENCE

TOKEN = "fleet-token-of-the-tests"


def test_a_dry_run_shows_everything_and_does_nothing(home: Home) -> None:
    seen = home.service("install", "--user", "--dry-run", "--from", "git+https://a/b")

    assert seen.returncode == 0, seen.stderr
    assert "pip install --disable-pip-version-check -q git+https://a/b" in seen.stdout
    assert f"write {home.units}/edgeserve-node.service:" in seen.stdout
    assert "systemctl --user restart edgeserve-node edgeserve-balancer" in seen.stdout
    assert "fleet-" not in seen.stdout
    assert home.calls == []
    assert not home.software.exists()
    assert not home.units.exists()


def test_install_makes_token_and_key_once_and_starts_what_is_asked_for(
    home: Home,
) -> None:
    a_release(home)

    first = home.service("install", "--user", "--approve")
    files = [home.root / "config" / name for name in ("token", "api-keys")]
    contents = [each.read_text() for each in files]
    again = home.service("install", "--user", "--approve")

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert [each.read_text() for each in files] == contents
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    assert "--approve" in (home.units / "edgeserve-balancer.service").read_text()
    assert "--approve" not in (home.units / "edgeserve-node.service").read_text()
    assert "loginctl enable-linger" in home.calls
    for name in ("config", "state", "models"):
        folder = f"Environment=EDGESERVE_{name.upper()}_DIR={home.root / name}\n"
        assert folder in (home.units / "edgeserve-node.service").read_text()
    assert "--user restart edgeserve-node edgeserve-balancer" in home.calls
    assert contents[0].strip() not in first.stdout + first.stderr
    assert "no models" in first.stdout


def test_a_node_alone_needs_a_token_of_its_fleet(home: Home) -> None:
    a_release(home)

    refused = home.service("install", "--user", "--node")
    (home.root / "config" / "token").write_text(TOKEN)
    seen = home.service("install", "--user", "--node")

    assert refused.returncode == 1
    assert "edgeserve join URL --token-file" in refused.stderr
    assert seen.returncode == 0, seen.stderr
    assert [each.name for each in home.units.iterdir()] == ["edgeserve-node.service"]
    assert not (home.root / "config" / "api-keys").exists()


def test_status_tells_by_its_exit_whether_all_serve(home: Home) -> None:
    none = home.service("status", "--user")
    port = home.settings()
    a_release(home, "0.1.7")
    home.service("install", "--user")

    seen = home.service("status")

    assert none.returncode == 1
    assert "service install" in none.stderr
    assert seen.returncode == 3
    assert "active (running)" in seen.stdout
    assert f"no answer at 127.0.0.1:{port}" in seen.stdout
    assert "version 0.1.7" in seen.stdout


def test_logs_are_those_of_the_journal(home: Home) -> None:
    a_release(home)
    home.service("install", "--user")

    both = home.service("logs", "-f", "-n", "5")
    one = home.service("logs", "--node")

    units = "--user-unit edgeserve-node --user-unit edgeserve-balancer"
    assert both.stdout == f"journalctl {units} --lines 5 --follow\n"
    assert one.stdout == (
        "journalctl --user-unit edgeserve-node --lines 100 --no-pager\n"
    )


def test_restart_restarts_and_uninstall_leaves_models_settings_and_keys(
    home: Home,
) -> None:
    home.settings()
    a_release(home)
    home.service("install", "--user")
    before = home.pid("node")

    restarted = home.service("restart")
    after = home.pid("node")
    seen = home.service("uninstall")

    assert restarted.returncode == 0, restarted.stderr
    assert before != after
    assert seen.returncode == 0, seen.stderr
    assert "--user disable --now edgeserve-node edgeserve-balancer" in home.calls
    assert list(home.units.iterdir()) == []
    assert not home.software.exists()
    assert (home.root / "models" / "small-F16.gguf").exists()
    assert (home.root / "config" / "token").exists()
    assert str(home.root / "models") in seen.stdout


def test_models_go_only_when_that_is_said_and_confirmed(home: Home) -> None:
    home.settings()
    (home.root / "models" / "notes.txt").write_text("mine")
    elsewhere = home.root / "elsewhere.gguf"
    elsewhere.write_text("of another program")
    (home.root / "models" / "linked.gguf").symlink_to(elsewhere)
    a_release(home)
    home.service("install", "--user")

    unsure = home.service("uninstall", "--models")
    sure = home.service("uninstall", "--models", "--yes")

    assert unsure.returncode == 1
    assert "2 model files" in unsure.stdout
    assert sure.returncode == 0, sure.stderr
    assert [each.name for each in (home.root / "models").iterdir()] == ["notes.txt"]
    assert elsewhere.exists()


def test_what_systemctl_refuses_is_said_in_its_words(home: Home) -> None:
    a_release(home)
    home.program("systemctl", 'echo "Failed to connect to bus" >&2; exit 1')

    seen = home.service("install", "--user")

    assert seen.returncode == 1
    assert "`systemctl --user daemon-reload` failed: Failed to connect" in seen.stderr


def test_a_program_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actions, "QUIET_SECONDS", 0.05)

    assert actions.quietly("sleep", str(PATIENCE)) is None

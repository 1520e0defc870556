"""Descriptions of services for launchd, and its commands; none runs here."""

from __future__ import annotations

import plistlib
from dataclasses import replace
from pathlib import Path

import pytest

from edgeserve.cli.service.actions import Run, Write
from edgeserve.cli.service.managers.launchd import Launchd
from edgeserve.cli.service.places import ROLES, Role, Scope, system_places
from edgeserve.config.settings import BalancerSettings, NodeSettings

PRINTED = """org.edgeserve.node = {
\tactive count = 1
\tstate = running
\tprogram = /opt/edgeserve/current/bin/edgeserve
\truns = 3
\tpid = 4711
}
"""


def launchd(scope: Scope) -> Launchd:
    places = replace(system_places(Path("/L")), scope=scope)
    return Launchd(places, "gui/501", "ada", Path("/logs"))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("scope", ["system", "user"])
def test_a_description_starts_the_service_again_and_leaves_it_time_to_drain(
    scope: Scope, role: Role
) -> None:
    found = plistlib.loads(launchd(scope).description(role).encode())

    settings = NodeSettings() if role == "node" else BalancerSettings()
    assert found["ProgramArguments"] == [
        *("/opt/edgeserve/current/bin/edgeserve", role, "start"),
    ]
    assert found["RunAtLoad"]
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["ExitTimeOut"] >= settings.drain_seconds + 10
    assert found.get("UserName") == ("ada" if scope == "system" else None)


def test_a_restart_lets_requests_finish_and_waits_for_the_end() -> None:
    found = [
        each for each in launchd("user").restart(["node"]) if isinstance(each, Run)
    ]

    assert [each.argv[1:] for each in found] == [
        ("bootout", "gui/501/org.edgeserve.node"),
        ("bootstrap", "gui/501", "/L/org.edgeserve.node.plist"),
    ]
    assert not found[0].needed
    assert found[1].again_for >= 45


def test_only_the_balancer_gets_the_balancers_flags() -> None:
    actions = launchd("user").install(ROLES, ("--approve",))

    texts = {each.path.name: each.text for each in actions if isinstance(each, Write)}
    assert "--approve" in texts["org.edgeserve.balancer.plist"]
    assert "--approve" not in texts["org.edgeserve.node.plist"]


def test_what_launchctl_prints_is_understood() -> None:
    state = launchd("user").state(PRINTED)

    assert (state.running, state.restarts) == (True, "2")
    assert not launchd("user").state("").running

"""What a server says of where it listens is true, and says what to do."""

from unittest.mock import MagicMock

import pytest

from balancer.api.access import AccessPolicy, audience
from balancer.clients.admission import Admission
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.http import listening
from edgeserve.http.types import Origin
from node.app import allowed_clients as who_comes
from tests.fakes.tokens import GivenTokens

LAN = "192.168.178.20"
DOCKER = {"docker0": ["172.17.0.1"], "br-0123456789ab": ["172.18.0.1"]}
SECRET = "a-secret-of-this-fleet"


@pytest.mark.parametrize(
    ("found", "default", "shown"),
    [
        ({**DOCKER, "eth0": [LAN, "fe80::1%eth0"]}, LAN, (LAN,)),
        ({"wg0": ["10.8.0.2"], "eth0": [LAN]}, LAN, (LAN, "10.8.0.2")),
        ({"eth0": [LAN, "fd00::20"]}, None, (LAN,)),
        ({"eth0": ["fd00::20", "fe80::1%eth0"]}, None, ("fd00::20",)),
        ({"docker0": ["172.17.0.1"]}, None, ("172.17.0.1",)),
        ({"br-lan": [LAN], "docker0": ["172.17.0.1"]}, None, (LAN,)),
        ({"lo": ["127.0.0.1", "::1"]}, None, ()),
    ],
)
def test_the_addresses_that_others_use_come_first_and_dockers_only_alone(
    found: dict[str, list[str]], default: str | None, shown: tuple[str, ...]
) -> None:
    assert listening.ranked(found, default) == shown


def test_every_address_of_a_few_is_named_and_many_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"eth0": [LAN], "eth1": [f"10.0.{n}.1" for n in range(4)]}
    monkeypatch.setattr(listening, "_by_interface", lambda: found)
    monkeypatch.setattr(listening, "_default_address", lambda: LAN)

    assert listening.lines(Origin("::", 8080), "everyone") == (
        f"listening on http://{LAN}:8080 and http://10.0.0.1:8080"
        " and http://10.0.1.1:8080 and 2 more\n  for everyone"
    )


def test_an_address_that_was_asked_for_is_the_one_that_is_named() -> None:
    said = listening.lines(Origin("127.0.0.1", 8080), "this machine only")

    assert said == "listening on http://127.0.0.1:8080\n  for this machine only"


def an_access(host: str, token: str | None = SECRET, *keys: str) -> AccessPolicy:
    clients = MagicMock(spec=Admission)
    clients.__bool__.return_value = bool(keys)
    return AccessPolicy(
        host=host,
        tokens=GivenTokens(*([token] if token else [])),
        clients=clients,
    )


@pytest.mark.parametrize(
    ("settings", "may", "says"),
    [
        ({}, an_access("127.0.0.1", None), "this machine only: no fleet token yet"),
        ({}, an_access("127.0.0.1", None), "edgeserve token new"),
        ({}, an_access("127.0.0.1"), "edgeserve key new"),
        ({"host": "127.0.0.1"}, an_access("127.0.0.1"), "this machine only: `host`"),
        ({}, an_access("::", SECRET, SECRET), "clients with an API key"),
        ({"anonymous": True}, an_access("::"), "everyone, without a key"),
    ],
)
def test_a_balancer_says_who_may_ask_and_what_lets_others_in(
    settings: dict[str, object], may: AccessPolicy, says: str
) -> None:
    assert says in audience(BalancerSettings(**settings), may)  # type: ignore[arg-type]  # a few of each type


@pytest.mark.parametrize(
    ("asked", "host", "token", "says"),
    [
        (None, "127.0.0.1", None, "this machine only: no fleet token yet"),
        ("127.0.0.1", "127.0.0.1", None, "edgeserve token new"),
        ("127.0.0.1", "127.0.0.1", SECRET, "this machine only: `host`"),
        (None, "::", SECRET, "balancers that have the fleet token"),
    ],
)
def test_a_node_says_who_may_come_and_what_lets_others_in(
    asked: str | None, host: str, token: str | None, says: str
) -> None:
    assert says in who_comes(NodeSettings(host=asked), host, joined=token is not None)

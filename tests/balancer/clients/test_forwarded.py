from __future__ import annotations

import pytest

from balancer.clients.forwarded import client_address, plain
from balancer.queue import RequestQueue, SlotClaim
from balancer.routing.decision import RoutingRequest
from balancer.routing.queued_request import Note
from edgeserve.config.settings import BalancerSettings
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.node import fake_node

OURS = frozenset(("10.0.0.5", "10.0.0.6"))


def seen(peer: str, forwarded: str | None = None) -> str:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    return client_address(peer, headers, OURS)


def test_a_trusted_proxy_names_the_client() -> None:
    assert seen("10.0.0.5", "192.0.2.7") == "192.0.2.7"
    assert seen("10.0.0.5", "192.0.2.7, 10.0.0.6") == "192.0.2.7"


def test_a_client_cannot_name_another() -> None:
    assert seen("192.0.2.9", "192.0.2.7") == "192.0.2.9"
    assert seen("10.0.0.5", "192.0.2.7, 192.0.2.9") == "192.0.2.9"


@pytest.mark.parametrize(
    "said",
    ["192.0.2.7:50123", "::ffff:192.0.2.7", "::FFFF:c000:207", "10.0.0.6, 192.0.2.7"],
)
def test_a_client_has_one_name(said: str) -> None:
    assert seen("10.0.0.5", said) == "192.0.2.7"


@pytest.mark.parametrize("said", ["2001:DB8:0::7", "[2001:db8::7]:443"])
def test_so_has_one_with_ipv6(said: str) -> None:
    assert seen("10.0.0.5", said) == "2001:db8::7"


def test_a_proxy_is_known_however_its_address_is_written() -> None:
    ours = frozenset(map(plain, ("2001:DB8:0:0::5",)))
    headers = {"x-forwarded-for": "192.0.2.7"}

    assert client_address("2001:db8::5", headers, ours) == "192.0.2.7"


@pytest.mark.parametrize(
    "said", [None, "", ",", "192.0.2.7,", "unknown", "<b>", "192.0.2.7, 1.2.3.400"]
)
def test_a_proxy_that_names_nobody_is_the_client(said: str | None) -> None:
    assert seen("10.0.0.5", said) == "10.0.0.5"


def test_names_are_no_addresses_of_proxies() -> None:
    with pytest.raises(ValueError, match="must be addresses such as"):
        BalancerSettings(trusted_proxies=("proxy.example",))


@pytest.mark.parametrize(
    ("proxies", "known"), [(("127.0.0.1",), "192.0.2.7"), ((), "127.0.0.1")]
)
async def test_the_queue_knows_the_client_that_a_trusted_proxy_names(
    proxies: tuple[str, ...], known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, clients = RequestQueue.claim, list[str]()

    def noted(queue: RequestQueue, routing: RoutingRequest, note: Note) -> SlotClaim:
        clients.append(routing.client)
        return claim(queue, routing, note)

    monkeypatch.setattr(RequestQueue, "claim", noted)
    async with fake_node() as node, endpoint(node, trusted_proxies=proxies) as here:
        got = await here.post(CHAT, chat(), {"x-forwarded-for": "192.0.2.7"})

    assert (got.status, clients) == (200, [known])

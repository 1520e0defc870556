"""Nodes that say themselves where they are."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from balancer.discovery.hints import Discovered, Withdrawn
from balancer.discovery.registration import Registrations
from edgeserve.errors import BadRequest, EdgeserveError
from edgeserve.security.proof import FleetKey, fleet_key, registration_mac
from edgeserve.security.registration import Registration
from edgeserve.wire import PROTOCOL, decode, encode
from tests.balancer.api.test_admin import KEY, TOKEN, bearer
from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.tokens import GivenTokens

NOBODY = "127.0.0.99"
"""An address of this machine at which nothing listens."""


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    return {
        "api_key_file": a_secret(tmp_path, "keys", KEY),
        "token_file": a_secret(tmp_path, "token", TOKEN),
        "host": "127.0.0.1",
    }


async def test_a_node_registers_and_is_followed() -> None:
    async with fake_node("pi") as node, endpoint() as balancer:
        answer = await balancer.post("/edgeserve/v1/register", {"url": node.url})
        await balancer.until(lambda fleet: bool(fleet.nodes))

        assert answer.status == 200
        assert (await balancer.post(CHAT, chat())).status == 200


async def test_a_node_behind_port_forwarding_is_found_where_it_asks_from() -> None:
    async with fake_node("pi") as node, endpoint() as balancer:
        inner = f"http://{NOBODY}:{node.origin.port}"
        said = {"url": inner, "id": node.report.id}
        answer = await balancer.post("/edgeserve/v1/register", said)
        await balancer.until(lambda fleet: bool(fleet.nodes))

        assert (answer.status, answer.json) == (
            200,
            {"problem": None, "proof": ""},
        )
        assert (await balancer.post(CHAT, chat())).status == 200


async def test_another_node_at_the_address_that_was_announced_is_not_taken_for_it() -> (
    None
):
    async with fake_node("pi") as node, endpoint() as balancer:
        said = {"url": node.url, "id": "somebody-else"}
        answer = await balancer.post("/edgeserve/v1/register", said)

        assert "is another node than the one announced" in answer.json["problem"]


async def test_a_node_that_cannot_be_reached_gets_an_error_and_is_logged_once() -> None:
    said = {"url": f"http://{NOBODY}:1"}
    async with endpoint() as balancer:
        answers = [
            await balancer.post("/edgeserve/v1/register", said) for _ in range(3)
        ]
        (news,) = balancer.heard[1:]

    problem, _, advice = answers[-1].json["problem"].partition("; --")
    assert f"http://{NOBODY}:1" in problem
    assert "http://127.0.0.1:1" in problem
    assert advice.startswith("announce-url")
    assert problem in news


async def test_why_a_registration_is_refused_is_logged_once(
    guarded: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with endpoint(**guarded) as balancer:
        for _ in range(3):
            await balancer.post("/edgeserve/v1/register", {"url": "http://pi:8090"})

    refusal = "at 127.0.0.1: it does not prove that it holds the fleet token"
    assert caplog.text.count(refusal) == 1


def test_containers_with_the_same_inner_address_stay_apart() -> None:
    heard = list[Discovered | Withdrawn]()

    async def sign() -> None:
        with closing(Registrations(heard.append, GivenTokens())) as register:
            for peer in ("192.168.1.20", "192.168.1.21"):
                register.register(Registration(url="http://172.17.0.2:8090"), peer)

    asyncio.run(sign())

    assert len({each.key for each in heard}) == 2


async def test_registering_takes_a_proof_of_the_fleet_token_that_counts_once(
    guarded: dict[str, Any],
) -> None:
    path, url = "/edgeserve/v1/register", "http://127.0.0.1:1"

    def proved(key: FleetKey, nonce: str, content: str) -> dict[str, str]:
        proof = registration_mac(key, "node", nonce, content)
        return {"url": url, "nonce": nonce, "proof": proof}

    key = fleet_key(TOKEN)
    async with endpoint(**guarded) as balancer:

        async def nonce() -> str:
            found: str = (await balancer.get(path)).json["nonce"]
            return found

        right = proved(key, await nonce(), f"{url}\n")
        refused = [
            {"url": url},
            proved(key, "0" * 32, f"{url}\n"),
            proved(fleet_key(KEY), await nonce(), f"{url}\n"),
            proved(key, await nonce(), "http://127.0.0.1:2\n"),
            {"url": url, "nonce": await nonce(), "proof": "\u00e9"},
        ]
        for each in refused:
            assert (await balancer.post(path, each)).status == 401
        assert (await balancer.post(path, {"url": url}, bearer(TOKEN))).status == 401
        answer = await balancer.post(path, right)
        again = await balancer.post(path, right)

    assert (answer.status, again.status) == (200, 401)
    expected = registration_mac(key, "balancer", right["nonce"], f"{url}\n")
    assert answer.json["proof"] == expected


async def test_without_an_address_tokens_are_compared_and_nothing_is_registered(
    guarded: dict[str, Any],
) -> None:
    path, statuses = "/edgeserve/v1/register", list[int]()
    async with endpoint(**guarded) as balancer:
        for token in (TOKEN, KEY):
            begun = (await balancer.get(path)).json
            proof = registration_mac(fleet_key(token), "node", begun["nonce"], "\n")
            said = {"url": "", "nonce": begun["nonce"], "proof": proof}
            answer = await balancer.post(path, said)
            statuses.append(answer.status)
            if answer.status == 200:
                key, nonce = fleet_key(token), begun["nonce"]
                expected = registration_mac(key, "balancer", nonce, "\n")
                assert answer.json == {"problem": None, "proof": expected}
            assert begun["protocol"] == PROTOCOL
        nodes = await balancer.get("/edgeserve/v1/nodes", bearer(KEY))

    assert statuses == [200, 401]
    assert nodes.json == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"url": 1}', b'{"url": "pi"}', b'{"url": "ftp://pi"}',
             b'{"url": "http://"}', b'{"url": "http://pi:99999"}',
             b'{"url": "http://[::1"}'],
)  # fmt: skip
async def test_a_registration_that_makes_no_sense_is_refused(body: bytes) -> None:
    async with endpoint() as balancer:
        answer = await balancer.post("/edgeserve/v1/register", body)

    assert answer.status == 400


async def test_a_registration_that_is_not_renewed_runs_out() -> None:
    heard = list[object]()
    register = Registrations(heard.append, GivenTokens(), kept=0.01)

    register.register(Registration(url="http://pi:8090"))
    await eventually(lambda: len(heard) == 2)

    assert [type(event).__name__ for event in heard] == ["Discovered", "Withdrawn"]


async def test_a_registration_that_is_renewed_stays() -> None:
    heard = list[object]()
    register = Registrations(heard.append, GivenTokens(), kept=30)

    register.register(Registration(url="http://pi:8090"))
    register.register(Registration(url="http://pi:8090"))
    register.close()

    assert [type(event).__name__ for event in heard] == ["Discovered", "Discovered"]
    with pytest.raises(BadRequest):
        register.register(Registration(url="nonsense"))


words = st.one_of(st.text(max_size=60), st.sampled_from(["http://pi:8090", "http://["]))


@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.fixed_dictionaries(
            {"url": words}, optional={"id": words, "nonce": words, "proof": words}
        ).map(encode),
    ),
    issued=st.booleans(),
)
def test_no_registration_made_up_is_taken_or_breaks_anything(
    body: bytes, *, issued: bool
) -> None:
    heard = list[object]()
    taken = closing(Registrations(heard.append, GivenTokens(TOKEN)))
    with taken as register, suppress(EdgeserveError):
        said = decode(body, Registration)
        if issued:
            said = structs.replace(said, nonce=register.challenge())
        register.register(said, register.checked(said))

    assert heard == []

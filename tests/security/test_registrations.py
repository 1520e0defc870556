"""Nothing is registered without a fresh proof that covers just that."""

from __future__ import annotations

import asyncio

from edgeserve.security.proof import fleet_key, registration_mac
from edgeserve.security.registration import Registration
from tests.fleet.fleet import TOKEN
from tests.security.asking import Json, User, a_user
from tests.security.conftest import Town
from tests.security.stranger import listens, serving

PATH = "/edgeserve/v1/register"
OURS = fleet_key(TOKEN)


async def nonce(user: User) -> str:
    async with user.session.get(PATH) as answer:
        found: Json = await answer.json()
        return str(found["nonce"])


async def register(user: User, **said: str) -> int:
    async with user.session.post(PATH, json=said) as answer:
        return answer.status


def proved(nonce_: str, url: str, id_: str = "", token: str = TOKEN) -> dict[str, str]:
    content = Registration(url=url, id=id_).content
    proof = registration_mac(fleet_key(token), "node", nonce_, content)
    return {"url": url, "id": id_, "nonce": nonce_, "proof": proof}


async def test_0_of_8_foreign_urls_are_registered_and_none_is_visited(
    town: Town,
) -> None:
    host = town.stranger
    async with a_user(town) as user, serving(host, listens) as (port, haul):
        own = f"http://{host.address}:{port}"
        real = f"http://{town.node.host.address}:8090"
        recorded = proved(await nonce(user), real)
        assert await register(user, **recorded) == 200

        # A false balancer gets a signature for a nonce that it chooses.
        fresh = await nonce(user)
        signed = proved(f"{fresh}\0{own}\n", real, "id")
        foreign = [
            {"url": own},
            {"url": own, "nonce": await nonce(user), "proof": ""},
            {**recorded, "url": own},
            {**recorded, "url": own, "nonce": await nonce(user)},
            {**proved(await nonce(user), real), "url": own},
            proved(await nonce(user), own, token="a-token-of-another-fleet"),
            proved("0" * 32, own),
            {**signed, "url": own, "id": f"\0{real}\nid", "nonce": fresh},
        ]
        statuses = [await register(user, **each) for each in foreign]
        again = await register(user, **recorded)
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        async with user.session.post(PATH, json=foreign[0], headers=with_token) as got:
            statuses.append(got.status)
        right = await user.prompts(4)
        seen = [each["url"] for each in await user.members()]

    assert statuses == [401] * 9
    assert again == 401
    assert haul.connections == 0
    assert not any(own in each for each in seen)
    assert right == 4


async def test_a_flood_of_begun_registrations_keeps_no_node_out(town: Town) -> None:
    real = f"http://{town.node.host.address}:8090"
    async with a_user(town) as user:
        begun = await nonce(user)
        issued = list[str]()
        for _ in range(3):
            issued += await asyncio.gather(*(nonce(user) for _ in range(500)))
        status = await register(user, **proved(begun, real))

    assert len(set(issued)) == 1500
    assert status == 200

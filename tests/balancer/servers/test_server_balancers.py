"""A balancer serves as a server of another one; see docs/many-machines.md."""

from __future__ import annotations

from edgeserve.config.servers import ServerSetting
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.balancer.servers.reading import text
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


def behind(endpoint: Endpoint) -> ServerSetting:
    """Name a balancer as a server, by its kind: without that it is refused."""
    return ServerSetting(url=endpoint.balancer.origin.url, kind="openai")


async def test_one_address_serves_the_models_of_several_balancers() -> None:
    async with (
        fake_node("pi", engine=an_engine("small:Q4_1")) as pi,
        fake_node("gpu", engine=an_engine("large:Q8_0")) as gpu,
        endpoint(pi) as small,
        endpoint(gpu) as large,
        endpoint(server_tables=(behind(small), behind(large))) as front,
    ):
        first = await front.post(CHAT, chat(model="small"))
        second = await front.post(CHAT, chat(model="large"))
        stream = await front.post(CHAT, chat(model="large", stream=True))
        unknown = await front.post(CHAT, chat(model="huge"))

    assert (first.status, len(pi.told)) == (200, 1)
    assert (second.status, stream.status, len(gpu.told)) == (200, 200, 2)
    assert text(stream.body) == second.text
    assert unknown.status == 404

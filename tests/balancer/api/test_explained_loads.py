"""What `why` tells of the loads that a request waited for."""

from __future__ import annotations

from edgeserve.cli.requests import seconds, summary_of
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


async def test_the_explanation_of_a_request_tells_of_the_load_that_it_waited_for() -> (
    None
):
    cold = an_engine("cold:Q4_1", state="absent", load_seconds=0.2, memory=2**30)
    async with fake_node("pi", engine=cold) as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(model="cold", max_tokens=4))
        id_ = answer.headers["x-edgeserve-request-id"]
        found = (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json

    loads = [(each["kind"], each["model"], each["node"]) for each in found["loads"]]
    assert loads == [("load_ordered", "cold:Q4_1", "pi"), ("loaded", "cold:Q4_1", "pi")]
    took = seconds(found["loads"][1]["seconds"])
    assert list(summary_of(found, found["arrived_at"]))[4:6] == [
        "cold:Q4_1 on pi began to load (1 request waits for cold)",
        f"cold:Q4_1 on pi was loaded after {took} s",
    ]

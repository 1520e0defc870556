"""A whole node with memory for one of its models, behind whole balancers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import NodeReport
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint
from tests.node.lifecycle.ordering import ordered
from tests.patience import PATIENCE


def one_is_ready(report: NodeReport) -> bool:
    return any(each.state == "ready" for each in report.engines)


@asynccontextmanager
async def behind(settings: NodeSettings) -> AsyncGenerator[Endpoint]:
    """A balancer before a node that has loaded the first of its models."""
    async with ordered(settings) as here:
        await here.until(one_is_ready)
        async with endpoint(f"http://127.0.0.1:{settings.port}") as balancer:
            async with asyncio.timeout(PATIENCE):
                yield balancer


async def ask(balancer: Endpoint, model: str) -> Answered:
    return await balancer.post(CHAT, chat(model=model, max_tokens=4))


def loads(balancer: Endpoint) -> list[str]:
    events = balancer.balancer.loader.events.latest()
    return [each.model for each in events if each.kind == "load_ordered"]


async def test_many_requests_for_a_cold_model_make_one_load(
    settings: NodeSettings, room: Callable[[int], None]
) -> None:
    room(1)
    async with behind(settings) as balancer:
        answers = await asyncio.gather(*(ask(balancer, "c") for _ in range(50)))

    assert {each.status for each in answers} == {200}
    assert loads(balancer) == ["c:F16"]


async def test_two_models_by_turns_make_the_fewest_loads(
    settings: NodeSettings, room: Callable[[int], None]
) -> None:
    room(1)
    async with behind(settings) as balancer:
        asking = [ask(balancer, model) for _ in range(20) for model in "ab"]
        answers = await asyncio.gather(*asking)

    assert {each.status for each in answers} == {200}
    assert len(loads(balancer)) == 1


async def test_two_balancers_that_want_different_models_both_get_them(
    settings: NodeSettings, room: Callable[[int], None]
) -> None:
    room(1)
    async with (
        behind(settings) as one,
        endpoint(f"http://127.0.0.1:{settings.port}") as other,
    ):
        answers = await asyncio.gather(
            *(ask(one, "b") for _ in range(10)), *(ask(other, "c") for _ in range(10))
        )

    assert {each.status for each in answers} == {200}
    assert len(loads(one) + loads(other)) <= 6


async def test_a_model_that_does_not_load_is_refused_with_its_engines_reason(
    settings: NodeSettings, room: Callable[[int], None], folder: Path
) -> None:
    room(1)
    shutil.copy(folder / "a-F16.gguf", folder / "bad-F16.gguf")
    async with behind(settings) as balancer:
        answer = await ask(balancer, "bad")
        well = await ask(balancer, "b")

    assert answer.status == 503
    assert "bad tensors" in answer.error
    assert well.status == 200

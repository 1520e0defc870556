"""SmolLM2 fits on neither of two real nodes: a request has both serve it together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.native import native
from tests.node.groups.real import HERE, RealNode, real_nodes

pytestmark = [native, pytest.mark.engine]

MODEL = "smollm2-135m-instruct"
LITTLE = (*HERE, "--memory-mib", "210")
"""Alone it needs 212 MiB at least, with the shortest context."""


async def ask(balancer: Endpoint, words: str = "Name a city.") -> Answered:
    return await balancer.post(
        CHAT, chat(words, model=MODEL, max_tokens=12, temperature=0)
    )


async def test_a_request_forms_a_group_and_a_lost_member_is_told_with_the_arithmetic(
    tmp_path: Path, smollm2: Path
) -> None:
    names = ("head", "worker")
    async with real_nodes(tmp_path, smollm2, *names, flags=LITTLE) as nodes:
        head, worker = nodes
        urls = [each.origin.url for each in nodes]
        token = tmp_path / "token"
        async with endpoint(*urls, token_file=token, anonymous=True) as balancer:
            groups = balancer.balancer.state.groups
            await eventually(lambda: any(e.temporary for e in groups.possible))
            first = await ask(balancer)
            group = await grouped(head)
            worker.kill()
            without = await refused(balancer)
            worker.start()
            again = await answered(balancer)
            shown = list(balancer.heard)

    print("\n".join(shown), first.json["timings"], sep="\n")
    assert first.status == 200, first.body
    assert group == {"head", "worker"}
    assert "another machine" in without.error
    assert again.text == first.text


async def grouped(head: RealNode) -> set[str]:
    """Return the names of the members of the group that serves."""
    report = await head.until(lambda report: report.engines)
    [engine] = report.engines
    assert engine.expected is not None
    return {each.name for each in engine.group}


async def refused(balancer: Endpoint) -> Answered:
    """Ask until the balancer knows that it cannot be."""
    while (answer := await ask(balancer)).status != 503:
        await asyncio.sleep(0.1)
    return answer


async def answered(balancer: Endpoint) -> Answered:
    """Ask until the group is there again."""
    while (answer := await ask(balancer)).status != 200:
        await asyncio.sleep(0.5)
    return answer

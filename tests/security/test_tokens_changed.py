"""A token that was replaced opens nothing, with a stolen certificate neither."""

from __future__ import annotations

import subprocess
import sys

from edgeserve.security.certificates import certificate_in
from edgeserve.security.proof import HELLO, KNOWN, REFUSAL
from tests.fleet.fleet import TOKEN, Process, answer, until
from tests.security.asking import PROMPT, a_user
from tests.security.conftest import Town
from tests.security.stranger import announce, listens, serving
from tests.security.test_false_balancers import guessed


def rotate(process: Process, *flags: str) -> None:
    """Run `edgeserve token rotate` for a node or a balancer."""
    file = process.folder / "config" / "token"
    argv = [sys.executable, "-m", "edgeserve", "token", "rotate", "--file", str(file)]
    subprocess.run([*argv, *flags], check=True, capture_output=True, timeout=60)


async def test_an_old_token_is_worth_something_only_while_it_is_kept(
    own_town: Town,
) -> None:
    town, host = own_town, own_town.stranger
    async with a_user(town) as user:
        id_, pem = town.identity
        rotate(town.balancer)
        copied = (town.balancer.folder / "config" / "token").read_bytes()
        new = town.node.folder / "config" / "new"
        new.write_bytes(copied)
        new.replace(new.with_name("token"))
        assert await user.prompts(4) == 4
        while_kept = await guessed(town, TOKEN)

        for each in (town.balancer, town.node):
            file = each.folder / "config" / "token"
            file.write_bytes(copied.partition(b"#")[0])
        after = await guessed(town, TOKEN)

        # The thief of the machine's disk has its certificate and the old token.
        town.node.kill()
        stolen = certificate_in(pem)
        async with serving(host, listens, stolen) as (port, haul):
            announce(host, "attic", id_, host.address, port)
            await until(lambda: haul.connections > 1, "the balancer has tried it")
            none = await user.prompts(4)
            town.node.start()
            announce(host, "attic", id_, host.address, port, ttl=0)
            await user.ask.serving("attic")
            right = await answer(
                lambda: user.prompts(4), lambda number: number == 4, "it serves"
            )

    assert while_kept[:1] == KNOWN  # until its last message, which is made up
    assert after == REFUSAL
    assert (none, right) == (0, 4)
    assert len(haul.data) <= haul.connections * HELLO
    assert haul.count(PROMPT, TOKEN, "GET") == 0

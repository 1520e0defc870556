"""Kill and freeze real engines under load, and count what became of the answers.

Usage: python -m tests.endpoint.faults.strike [--model FILE] [--killed N] [--frozen N]
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import aiohttp
import click

from edgeserve.config.paths import models_dir
from edgeserve.models.download import DEFAULT, fetch
from tests.endpoint.faults.answers import questions
from tests.endpoint.faults.campaign import Struck, struck, table, undisturbed
from tests.endpoint.faults.pair import Pair, a_pair

MOST_SECONDS = 1200.0


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path), help="A GGUF file.")
@click.option("--killed", default=200, help="Answers to hit by SIGKILL.")
@click.option("--frozen", default=60, help="Answers to hit by SIGSTOP.")
def main(model: Path | None, killed: int, frozen: int) -> None:
    """Run, print the table, and fail where an answer did."""
    found = model or fetch(DEFAULT, models_dir(), lambda _step, _done, _total: None)
    with tempfile.TemporaryDirectory() as home, a_pair(found, Path(home)) as pair:
        campaigns = asyncio.run(_run(pair, killed, frozen))
    print(table(campaigns))
    wrong = [each for campaign in campaigns for each in campaign.failed]
    torn = [each for campaign in campaigns for each in campaign.torn]
    for answer in wrong:
        tried = [(each["node"], each["outcome"]) for each in answer.attempts]
        print(f"failed: {answer.wrong}\n   attempts {tried}")
    for verdict in torn:
        print(f"torn by {verdict.widest:.1f} nats: after {verdict.at}")
    sys.exit(bool(wrong or torn))


async def _run(pair: Pair, killed: int, frozen: int) -> list[Struck]:
    wanted = {signal.SIGKILL: killed, signal.SIGSTOP: frozen}
    unbounded = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(pair.url, timeout=unbounded) as session:
        await pair.serve(session)
        expected = await undisturbed(session, questions())
        return [
            await struck(pair, session, deed, expected, hits=n, seconds=MOST_SECONDS)
            for deed, n in wanted.items()
            if n
        ]


if __name__ == "__main__":
    main()

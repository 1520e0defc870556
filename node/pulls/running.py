"""Running: the parts that pull models and share them, while the node serves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Upstream
from edgeserve.runtime.background import background, declared
from node.pulls.checksums import Checksums
from node.pulls.fetching import Fetching
from node.pulls.jobs import OwnId, PullJobs, Tell
from node.pulls.peers import Peers
from node.pulls.shared import Library

PULLS = declared("pulls")
CHECKSUMS = declared("checksums")


@dataclass(frozen=True)
class Pulling:
    """What pulls models, and what gives other nodes theirs."""

    jobs: PullJobs
    library: Library


@asynccontextmanager
async def pulling(
    settings: NodeSettings, nodes: Upstream, own_id: OwnId, tell: Tell
) -> AsyncGenerator[Pulling]:
    """Do what is ordered while the block runs. `nodes` sends requests to nodes."""
    library = Library(settings, Checksums(settings.state_dir))
    fetching = Fetching(settings, Peers(nodes), library)
    jobs = PullJobs(settings, fetching, own_id, tell)
    async with background() as tasks:
        tasks.start(CHECKSUMS, library.read)
        tasks.start(PULLS, jobs.work)
        yield Pulling(jobs, library)

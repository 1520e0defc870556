"""Fetching: brings one model here, from peers if they have it, else from its source."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Origin
from edgeserve.models.download import CATALOG, NotFetched, Show
from edgeserve.models.naming import is_projector
from edgeserve.models.pull.arrival import Incoming, arrive
from edgeserve.models.pull.plan import PullPlan, at_revision, built_in, planned
from edgeserve.models.pull.sources import Source, stays_inside
from edgeserve.models.pull.sums import Sums
from edgeserve.models.pull.transfer import WAIT
from edgeserve.openai import normal
from edgeserve.orders.pulls import INTERNET, PIECE, Peer, SharedFile
from node.pulls.copying import NotCopied, copy_from
from node.pulls.job import Job
from node.pulls.peers import Found, Holder, Peers
from node.pulls.pieces import largest_group
from node.pulls.shared import Library, Wanted
from node.pulls.sources import source_of

LOOK_SECONDS, MODEL_SECONDS = 0.5, 2.0
"""Between two looks at peers that are not ready; to find a model costs them more."""

T = TypeVar("T")


class Fetching:
    """Does the work of a pull, in a thread; asks peers in the event loop."""

    def __init__(self, settings: NodeSettings, peers: Peers, library: Library) -> None:
        self._folder = settings.models_dir
        self._peers, self._library = peers, library

    def pull(self, job: Job, loop: asyncio.AbstractEventLoop, own_id: str) -> Path:
        """Bring the model of a job here. Raises CommandError."""
        WAIT.set(job.wait)
        return _Pull(job, loop, own_id, self._folder, self._peers, self._library).run()


class _Pull:
    """One pull, in its thread."""

    def __init__(
        self,
        job: Job,
        loop: asyncio.AbstractEventLoop,
        own_id: str,
        folder: Path,
        peers: Peers,
        library: Library,
    ) -> None:
        self._job, self._loop, self._folder = job, loop, folder
        self._peers, self._library = peers, library
        self._own = Peer(id=own_id, name="this node", urls=())
        others = [each for each in job.order.peers if each.id != own_id]
        self._first = [each for each in others if each.id < own_id]
        self._good = others
        self._came: dict[Path, SharedFile] = {}

    def run(self) -> Path:
        plan = self._planned()
        self._job.note(*plan.notes)
        files = [replace(each, fill=partial(self._fill, each)) for each in plan.files]
        path = arrive(files, self._folder, self._job.show, self._arrived)
        self._job.has(self._came[each.target] for each in files)
        return path

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def _at_work(self, peers: Iterable[Peer]) -> Peer | None:
        """Return the first of the peers that has to be waited for."""
        pulls = self._ask(self._peers.pulls(peers, self._job.order))
        return next((peer for peer, p in pulls if not (p.over or p.yields)), None)

    def _arrived(self, file: Incoming, sums: Sums) -> None:
        self._came[file.target] = SharedFile(
            sha256=sums.sha256,
            size=file.target.stat().st_size,
            name=file.target.relative_to(self._folder).as_posix(),
            key=file.key,
        )
        self._loop.call_soon_threadsafe(
            self._library.arrived, file.target, file.key, sums
        )

    # Which files

    def _planned(self) -> PullPlan:
        order, folder = self._job.order, self._folder
        if known := CATALOG.get(order.source.lower()):
            return built_in(known, folder)
        source = source_of(order)
        if source is not None:
            return self._looked_up(at_revision(source, order.revision))
        holders = self._of_model(order.source)
        files = [from_peer(each.peer, each.file, folder) for each in holders]
        return PullPlan(files)

    def _looked_up(self, source: Source) -> PullPlan:
        """Look the source up; where that fails, have what another node makes of it.

        One node that is online, and has the token of a gated repository, is enough.
        """
        try:
            return planned(source, self._folder, self._job.show)
        except NotFetched as error:
            self._job.yields()
            while True:
                at_work = self._at_work(self._good)
                pulls = self._ask(self._peers.pulls(self._good, self._job.order))
                done = ((peer, p.files) for peer, p in pulls if p.state == "done")
                if found := next(done, None):
                    peer, files = found
                    return PullPlan(
                        [from_peer(peer, each, self._folder) for each in files]
                    )
                if at_work is None:
                    raise
                self._wait(f"{error}; {at_work.name} can fetch it")

    def _of_model(self, name: str) -> list[Holder]:
        """Return the files of a model that one node has: this one, or a peer."""
        while True:
            found = self._with_own(Wanted(model=name))
            whole = [each for each in found.holders if each.peer not in found.reading]
            if whole or not found.reading:
                break
            self._wait(_reading(found), MODEL_SECONDS)
        variants = sorted({each.file.variant for each in whole})
        exact = [each for each in variants if normal(each) == normal(name)]
        if len(exact or variants) > 1:
            there = ", ".join(variants)
            raise NotFetched(
                f"nodes have several variants of {name}: {there}; name one"
            )
        if not variants:
            raise NotFetched(
                f"{name!r} is no source, and no node that answers has a model of that"
                " name; `edgeserve models` lists them"
            )
        chosen = (exact or variants)[0]
        of_it = [each for each in whole if each.file.variant == chosen]
        holders = [each for each in of_it if each.peer == of_it[0].peer]
        return sorted(
            holders,
            key=lambda each: (is_projector(Path(each.file.name)), each.file.name),
        )

    def _with_own(self, wanted: Wanted) -> Found:
        """Find who has a model; what is here comes first, and is only checked."""
        found = self._ask(self._peers.find(self._good, wanted))
        own = self._ask(self._library.find(wanted))
        holders = [Holder(self._own, Origin("", 0), each) for each in own.files]
        reading = [self._own] if own.reading else []
        return Found((*holders, *found.holders), (*reading, *found.reading))

    # One file

    def _fill(self, file: Incoming, part: Path, show: Show) -> Sums | None:
        """Complete a file from peers; from its source once none has it or fetches it.

        Of the peers that fetch it only the first by id goes to its source.
        """
        self._job.next_file()
        wanted = Wanted(content=file.sha256 or file.key, size=file.size)
        while True:
            at_work = self._at_work(self._in_turn())
            found = self._ask(self._peers.find(self._good, wanted))
            if holders := [each for each in found.holders if _fits(each, file)]:
                if sums := self._copied(file, holders, part):
                    return sums
            elif found.reading:
                self._wait(_reading(found))
            elif at_work:
                self._wait(f"{at_work.name} fetches it")
            else:
                break
        self._job.came_from(INTERNET)
        return file.fill(part, show)

    def _in_turn(self) -> list[Peer]:
        return [each for each in self._first if each in self._good]

    def _copied(self, file: Incoming, holders: list[Holder], part: Path) -> Sums | None:
        """Copy from the peers that agree; None, and fewer are good, if that fails."""
        lists = {each: each.file.pieces for each in holders}
        agreed = largest_group(lists)
        name, total = file.target.name, agreed[0].file.size

        def progress(done: int, senders: frozenset[str]) -> None:
            self._job.came_from(*sorted(senders))
            self._job.show(f"{name}: copying", done, total)

        try:
            return copy_from(self._peers, agreed, part, self._loop, progress)
        except NotCopied as error:
            self._good = [each for each in self._good if each not in error.peers]
            names = ", ".join(sorted(each.name or each.id for each in error.peers))
            self._job.note(f"{names} could not give {name}: {error}")
            return None

    def _wait(self, step: str, seconds: float = LOOK_SECONDS) -> None:
        self._job.waits(step)
        self._job.wait(seconds)


def _fits(holder: Holder, file: Incoming) -> bool:
    shared = holder.file
    same = shared.sha256 == file.sha256 if file.sha256 else shared.key == file.key
    complete = len(shared.pieces) == -(-shared.size // PIECE)
    return same and complete and file.size in (None, shared.size)


def _reading(found: Found) -> str:
    names = ", ".join(each.name or each.id for each in found.reading)
    return f"{names} may have it, and computes checksums"


def from_peer(peer: Peer, shared: SharedFile, folder: Path) -> Incoming:
    """Plan to copy a file that only peers have. Raises NotFetched."""
    hidden = any(part.startswith(".") for part in shared.name.split("/"))
    if (
        hidden
        or not stays_inside(shared.name)
        or not shared.name.lower().endswith(".gguf")
    ):
        raise NotFetched(f"{peer.name} has it as {shared.name!r}: no name to use")
    return Incoming(
        target=folder / shared.name,
        size=shared.size,
        sha256=shared.sha256,
        key=shared.sha256,
        fill=_gone,
    )


def _gone(part: Path, show: Show) -> None:
    del part, show
    raise NotFetched("no node that answers has the model any longer; what came is kept")

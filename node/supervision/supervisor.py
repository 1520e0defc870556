"""Supervisor: start one engine, watch it, restart it, quarantine it, stop it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from math import inf

from edgeserve.auth import new_secret
from edgeserve.config.settings import LOOPBACK, NodeSettings
from edgeserve.errors import NodeLost, NoNode
from edgeserve.http.types import Origin, Upstream
from edgeserve.runtime.background import declared
from edgeserve.runtime.tasks import first_of
from edgeserve.wire import Ended, EngineReport, EngineState
from node.engines.base import Engine, EngineSpec
from node.engines.output import Output, ending, telling
from node.engines.probe import Counters, Probe, Properties, Unwell
from node.engines.process import Look, Process, running
from node.supervision import growth
from node.supervision.liveness import Pace, ProcessActivity, watch_of
from node.supervision.restart import (
    Attempt,
    Ending,
    RestartBackoff,
    StartupFallbacks,
    ended,
    given_up,
    replaced,
)
from node.supervision.slots import Slots

log = logging.getLogger(__name__)

ENGINE = declared("engine")
LAST_WORDS_SECONDS = 1.0
LATE_SECONDS = 0.5
ASKED_SECONDS = 5.0
"""An engine that ends so soon after a request may have ended at it: its connection is
seen to break before its process is seen to be gone."""


class Supervisor:
    """One engine, however often its process is replaced."""

    def __init__(
        self,
        engine: Engine,
        spec: EngineSpec,
        settings: NodeSettings,
        upstream: Upstream,
        changed: Callable[[], None],
        *,
        remedies: StartupFallbacks,
        pace: Pace,
        clock: Callable[[], float],
        pick_port: Callable[[], int],
    ) -> None:
        self.spec = spec
        self.slots = Slots(spec.launch.slots, self._slots_changed)
        self.api_key = ""
        self._engine = engine
        self._settings = settings
        self._upstream = upstream
        self._changed = changed
        self._remedies = remedies
        self._pace = pace
        self._clock = clock
        self._pick_port = pick_port
        self._port = 0
        self._epoch = 0
        self._state: EngineState = "loading"
        self._reason: str | None = None
        self._found: Properties | None = None
        self._ready_at: float | None = None
        self._output = Output()
        self._ending = Ending()
        self._ended_how: Ended = ""
        self._memory_limit, self._harmed = 0, False
        self._asked_at = -inf
        self._working = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._left = asyncio.Event()

    @property
    def report(self) -> EngineReport:
        """What the node says of the engine now."""
        spec, found = self.spec, self._found
        busy = self._state == "ready" and self.slots.full
        lacks = found.lacks if found else ()
        return EngineReport(
            id=spec.id,
            model=spec.model,
            variant=spec.variant,
            file=spec.path.name,
            state="busy" if busy else self._state,
            reason=self._reason,
            slots=self.slots.total,
            busy=self.slots.busy,
            context=found.context if found else spec.launch.context,
            abilities=tuple(each for each in spec.abilities if each not in lacks),
            kind=self._engine.kind,
            build=self._engine.build or (found.build if found else ""),
            epoch=self._epoch,
            launch=spec.launch,
            placement=self._output.placed.placement,
            expected=spec.expected,
            ended=self._ended_how,
            memory_limit=self._memory_limit,
        )

    @property
    def origin(self) -> Origin:
        """Where the engine listens now; a restart moves it."""
        return Origin(LOOPBACK, self._port)

    @contextmanager
    def claim(self, *, beside: bool = False) -> Generator[None]:
        """Hold one slot for the length of a block; none for what runs `beside` them.

        Raises NoNode, with the reason, where the engine is not ready; FleetBusy, with
        Retry-After, where every slot is taken.
        """
        if self._state != "ready":
            why = f": {self._reason}" if self._reason else ""
            raise NoNode(f"{self.spec.variant} is {self._state} here{why}")
        with self.slots.claim(beside=beside) as held:
            self._asked_at = self._clock()
            try:
                yield
            except (asyncio.CancelledError, ConnectionError):
                # The client has gone; the engine notices at its next batch.
                held.left = self._state == "ready"
                raise
            finally:
                self._asked_at = self._clock()

    async def drained(self) -> None:
        """Wait until no slot is claimed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Live, die, and live again, until cancelled."""
        failures = RestartBackoff()
        while True:
            reason = await self._live()
            if await self._remedied(reason):
                failures = RestartBackoff()
                continue
            failures = failures.after(self._clock(), ready_seconds=self._ready_seconds)
            log.warning("%s: %s", self.spec.id, reason)
            if failures.hopeless and not self._harmed:  # else requests have ended it
                self._become("quarantined", given_up(self._settings, reason))
                await replaced(self.spec.path, self._pace.file)
                failures = RestartBackoff()
            else:
                self._become("failed", reason)
                await asyncio.sleep(failures.delay * self._pace.backoff)

    async def supervise(self) -> None:
        """`run`; a mistake of ours is told in the report, too."""
        try:
            await self.run()
        except Exception as error:
            self._become("failed", f"the supervisor broke: {error!r}")
            raise

    @property
    def _ready_seconds(self) -> float:
        return 0.0 if self._ready_at is None else self._clock() - self._ready_at

    async def _live(self) -> str:
        """Run one process to its end; returns what ended it."""
        self._port, self.api_key = self._pick_port(), new_secret("engine")
        self._epoch += 1
        self.slots.freed()
        self._ready_at = self._found = None
        self._ending, self._memory_limit = Ending(), 0
        self._become("loading", self._reason)
        command = self._engine.command(self.spec, port=self._port, api_key=self.api_key)
        try:
            async with running(command, self._settings.state_dir) as process:
                self._output = process.output
                ways = self._ended(process), self._tend(process), self._feel(process)
                reason = await first_of(*ways)
                if self._state == "stuck":
                    process.kill()  # its callers hold on until it is gone
                return reason
        except OSError as error:
            return f"cannot be started: {error}"

    async def _remedied(self, reason: str) -> bool:
        """Start in another way, where that may help; says whether there is one."""
        ready = self._ready_at is not None
        ending = replace(self._ending, reason=reason, ready=ready)
        attempt = await self._remedies.after(ending, Attempt(self._engine, self.spec))
        if attempt is None:
            return False
        self._engine, self.spec = attempt.engine, attempt.spec
        self.slots.total = attempt.spec.launch.slots
        log.warning("%s: %s", self.spec.id, attempt.said)
        self._become("loading", attempt.said)
        return True

    async def _ended(self, process: Process) -> str:
        kills = growth.kernel_kills()
        status = await process.ended()
        lines = process.output.lines
        self._ending = ended(status, lines)
        how = growth.ended_by(status, for_memory=growth.kernel_kills() > kills)
        again = self._ending.no_memory and self.spec.launch.gpu_layers != 0
        return self._lost("loading" if again else "failed", ending(status, lines), how)

    async def _tend(self, process: Process) -> str:
        """See the engine become ready, then watch it work; returns what is wrong."""
        probe = Probe(self._upstream, self.origin, self.api_key)
        limit = self._settings.load_seconds
        try:
            async with asyncio.timeout(limit):
                self._found = await self._readiness(probe)
        except TimeoutError:
            said = telling(process.output.lines)
            return self._lost("failed", f"not ready after {limit:g} s: {said}")
        except (Unwell, NodeLost) as error:
            # Its end, should it follow, says more than this.
            await asyncio.sleep(LAST_WORDS_SECONDS)
            return self._lost("failed", str(error))
        self._ready_at = self._clock()
        if look := process.look():
            self._memory_limit = growth.limit(self.spec, look.memory)
        self._become("ready", await self._remedies.helped(self.spec.id))
        return await first_of(self._watch(process, probe), self._let_go(probe))

    async def _readiness(self, probe: Probe) -> Properties:
        while not await probe.healthy():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(self._pace.ready)
        await probe.first_work(self.spec.role)
        return await probe.properties()

    async def _watch(self, process: Process, probe: Probe) -> str:
        """Look at the counters while requests run; an idle engine is left alone."""
        sees = self._found is not None and self._found.vision
        watch = watch_of(self.spec, self._clock(), vision=sees)
        while True:
            await self._working.wait()
            watch = watch.again(self._clock())
            while self.slots.busy:
                await asyncio.sleep(self._pace.progress)
                found, look = await self._look(probe), process.look()
                excused = look is not None and look.excused
                watch = watch.seen(found, self._clock(), excused=excused)
                limit = watch.patience(self._settings.stuck_seconds)
                if watch.still_seconds(self._clock()) >= limit:
                    return self._lost("stuck", f"no progress for {limit:g} s")

    async def _let_go(self, probe: Probe) -> str:
        """See soon whether the engine has dropped those who left; `_watch` goes on."""
        while True:
            await self._left.wait()
            for pause in self._pace.left:
                await asyncio.sleep(pause)
                if self.slots.left:
                    await self._look(probe)
            self._left.clear()

    async def _look(self, probe: Probe) -> Counters | None:
        """Read the counters; an engine that does not answer holds nobody's slot."""
        before = self.slots.attended
        found = await probe.counters()
        begun = max(0, self.slots.attended - before)
        # Of those that came meanwhile it may know nothing yet.
        self.slots.freed(found.requests + begun if found else 0)
        return found

    async def _feel(self, process: Process) -> str:
        """See that the process is at work; returns what is wrong."""
        probe = Probe(self._upstream, self.origin, self.api_key)
        pulse = ProcessActivity(process.look() or Look(0.0))
        every = self._pace.pulse
        while True:
            began = self._clock()
            await asyncio.sleep(every)
            if (look := process.look()) is None:
                continue
            if 0 < self._memory_limit < look.memory:
                process.kill()  # at once: it goes on growing
                return self._lost(
                    "failed", growth.said(look.memory, self._memory_limit)
                )
            asks = self._state == "ready" and self.slots.busy and pulse.idles(look)
            silent = bool(asks) and not await probe.answers(every)
            # Who looks so late may have been too late for the answer, too.
            in_time = self._clock() - began < 2 * every + LATE_SECONDS
            pulse = pulse.seen(look, silent=silent and in_time)
            if pulse.lost:
                return self._lost("stuck", pulse.lost, pulse.ended)

    def _lost(self, state: EngineState, reason: str, how: Ended = "died") -> str:
        """Stop claims at once; the process is still to be ended."""
        asked = self.slots.busy > 0 or self._clock() - self._asked_at < ASKED_SECONDS
        self._harmed = self._ready_at is not None and asked
        self._ended_how = how
        self._become(state, reason)
        return reason

    def _become(self, state: EngineState, reason: str | None) -> None:
        self._state, self._reason = state, reason
        self._changed()

    def _slots_changed(self) -> None:
        busy = self.slots.busy > 0
        (self._working.set if busy else self._working.clear)()
        (self._idle.clear if self.slots.attended else self._idle.set)()
        if self.slots.left:
            self._left.set()
        self._changed()

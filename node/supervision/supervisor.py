"""Supervisor: start one engine, restart it, quarantine it, stop it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from edgeserve.config.settings import LOOPBACK, NodeSettings
from edgeserve.errors import NodeLost, NoNode
from edgeserve.http.types import Origin, Upstream
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.tasks import first_of
from edgeserve.security.tokens import new_secret
from edgeserve.wire import Ended, EngineReport, EngineState
from node.engines.base import Engine, EngineSpec
from node.engines.output import Output, ending, telling
from node.engines.probe import Probe, Properties, Unwell
from node.engines.process import Process, free_port, running, sweep
from node.supervision import growth
from node.supervision.fallbacks import Attempt, Ending, StartupFallbacks, ended
from node.supervision.liveness import Intervals, watchdog_of
from node.supervision.loading import LoadProgress
from node.supervision.report import report_of
from node.supervision.restart import RestartBackoff, quarantined, replaced
from node.supervision.saving import properties_of
from node.supervision.slots import Slots
from node.supervision.use import EngineUse
from node.supervision.watch import EngineWatch, SlotEvents

log = logging.getLogger(__name__)

ENGINE = declared("engine")
LAST_WORDS_SECONDS = 1.0


class Supervisor:
    """One engine, however often its process is replaced.

    `changed` is called whenever `report` may have changed.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        spec: EngineSpec,
        settings: NodeSettings,
        upstream: Upstream,
        changed: Callable[[], None],
        fallbacks: StartupFallbacks | None = None,
        intervals: Intervals | None = None,
        clock: Callable[[], float] = time.monotonic,
        pick_port: Callable[[], int] = free_port,
        load: LoadProgress | None = None,
        epoch: int = 0,
    ) -> None:
        self.spec = spec
        self.slots = Slots(spec.launch.slots, self._slots_changed, clock)
        self.api_key = ""
        self.load = load or LoadProgress()
        self.use = EngineUse(clock)
        self.pinned = False
        self._engine = engine
        self._settings = settings
        self._upstream = upstream
        self._changed = changed
        self._fallbacks = fallbacks or StartupFallbacks()
        self._intervals = intervals or Intervals()
        self._clock = clock
        self._pick_port = pick_port
        self._port = 0
        self._epoch = epoch
        self._state: EngineState = "loading"
        self._reason: str | None = None
        self._properties: Properties | None = None
        self._output = Output()
        self._ending = Ending()
        self._ended_how: Ended = ""
        self._memory_limit = 0
        self._lost_requests = False
        self._retiring: str | None = None
        self._retired: EngineState = "loading"
        self._process: Process | None = None
        self._events = SlotEvents()

    @property
    def report(self) -> EngineReport:
        """The engine's state, for balancers."""
        spec, properties = self.spec, self._properties
        state = self._retired if self._retiring else self._state
        busy = state == "ready" and self.slots.full
        lacks = properties.lacks if properties else ()
        return report_of(
            spec,
            "busy" if busy else state,
            self._engine.kind,
            reason=self._retiring or self._reason,
            slots=self.slots.total,
            busy=self.slots.busy,
            context=properties.context if properties else spec.launch.context,
            abilities=tuple(each for each in spec.abilities if each not in lacks),
            build=self._engine.build or (properties.build if properties else ""),
            epoch=self._epoch,
            placement=self._output.placement,
            saves=properties.saves if properties else None,
            ended=self._ended_how,
            memory_limit=self._memory_limit,
            load_seconds=self.load.seconds,
            progress=self.load.share if state == "loading" else None,
            pinned=self.pinned,
        )

    @property
    def origin(self) -> Origin:
        """Where the engine listens now; a restart changes it."""
        return Origin(LOOPBACK, self._port)

    @contextmanager
    def claim(self, by: str = "", *, beside: bool = False) -> Generator[None]:
        """Hold one slot for the length of the block; none for work `beside` the slots.

        Raises NoNode, with the reason, where the engine is not ready; FleetBusy, with
        Retry-After, where every slot is taken.
        """
        if self._retiring:
            raise NoNode(f"{self.spec.variant}: {self._retiring}")
        if self._state != "ready":
            why = f": {self._reason}" if self._reason else ""
            raise NoNode(f"{self.spec.variant} is {self._state} here{why}")
        with self.slots.claim(by, beside=beside) as claim:
            self.use.began()
            try:
                yield
            except (asyncio.CancelledError, ConnectionError):
                # The client has gone; the engine notices at its next batch.
                claim.left = self._state == "ready"
                raise
            finally:
                self.use.ended()

    @property
    def retiring(self) -> bool:
        """Whether it takes no more requests."""
        return self._retiring is not None

    @property
    def idle(self) -> bool:
        """Whether no slot is claimed."""
        return self._events.idle.is_set()

    def held(self) -> int:
        """Return the bytes of main memory that it would give back; asks the system."""
        look = self._process.look() if self._process else None
        return look.own if look else 0

    def retire(self, why: str, state: EngineState = "loading") -> None:
        """Refuse new requests from now on, reported as `state`; running ones go on."""
        self._retiring, self._retired = why, state
        self._changed()

    def stay(self) -> None:
        """Take requests again."""
        self._retiring = None
        self._changed()

    async def drained(self) -> None:
        """Wait until no slot is claimed."""
        await self._events.idle.wait()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Supervisor]:
        """Run the engine for the length of the block, which starts before it is ready.

        At the end the engine's whole process group is gone.
        """
        await asyncio.to_thread(sweep, self._settings.state_dir)
        async with background() as tasks:
            tasks.start(ENGINE, self._supervise, self.spec.id)
            yield self

    async def _supervise(self) -> None:
        """Start and restart the engine until cancelled; report an error of our own."""
        try:
            await self._restarts()
        except Exception as error:
            self._become("failed", f"the supervisor broke: {error!r}")
            raise

    async def _restarts(self) -> None:
        failures = RestartBackoff()
        while True:
            reason = await self._run_process()
            if await self._fell_back(reason):
                failures = RestartBackoff()
                continue
            failures = failures.after(
                self._clock(), ready_seconds=self.use.ready_seconds
            )
            if failures.repeated:
                self.load.fail(reason)
            log.warning("%s: %s", self.spec.id, reason)
            # An engine that requests have ended is never quarantined.
            if failures.hopeless and not self._lost_requests:
                self._become("quarantined", quarantined(self._settings, reason))
                await replaced(self.spec.path, self._intervals.file)
                failures = RestartBackoff()
            else:
                self._become("failed", reason)
                await asyncio.sleep(failures.delay * self._intervals.backoff)

    async def _run_process(self) -> str:
        """Run one process to its end; returns the reason."""
        self._port, self.api_key = self._pick_port(), new_secret("engine")
        self._epoch += 1
        self.slots.freed()
        self.use.ready_at = self._properties = None
        self._ending, self._memory_limit = Ending(), 0
        self.load.begin()
        self._become("loading", self._reason)
        command = self._engine.command(self.spec, port=self._port, api_key=self.api_key)
        try:
            async with running(command, self._settings.state_dir) as process:
                self._output, self._process = process.output, process
                watch = self._watch(process)
                reason = await first_of(
                    self._ended(process), self._ready_then_watched(watch), watch.alive()
                )
                if self._state == "stuck":
                    process.kill()  # its clients wait until it is gone
                return reason
        except OSError as error:
            return f"cannot be started: {error}"

    def _watch(self, process: Process) -> EngineWatch:
        return EngineWatch(
            process=process,
            probe=Probe(self._upstream, self.origin, self.api_key),
            slots=self.slots,
            events=self._events,
            lost=self._lost,
            stuck_seconds=self._settings.stuck_seconds,
            intervals=self._intervals,
            clock=self._clock,
        )

    async def _fell_back(self, reason: str) -> bool:
        """Choose another launch, if one may help; returns whether there is one."""
        ready = self.use.ready_at is not None
        ending = replace(self._ending, reason=reason, ready=ready)
        attempt = await self._fallbacks.after(ending, Attempt(self._engine, self.spec))
        if attempt is None:
            return False
        self._engine, self.spec = attempt.engine, attempt.spec.saving_as(self.spec)
        self.slots.total = attempt.spec.launch.slots
        log.warning("%s: %s", self.spec.id, attempt.why)
        self._become("loading", attempt.why)
        return True

    async def _ended(self, process: Process) -> str:
        kills = growth.kernel_kills()
        status = await process.ended()
        lines = process.output.lines
        self._ending = ended(status, lines)
        how = growth.ended_by(status, for_memory=growth.kernel_kills() > kills)
        again = self._ending.no_memory and self.spec.launch.gpu_layers != 0
        return self._lost("loading" if again else "failed", ending(status, lines), how)

    async def _ready_then_watched(self, watch: EngineWatch) -> str:
        """Wait until the engine is ready, then watch it; returns what is wrong."""
        limit = self._settings.load_seconds
        try:
            async with asyncio.timeout(limit):
                properties = await self._readiness(watch.probe)
        except TimeoutError:
            why = telling(watch.process.output.lines)
            return self._lost("failed", f"not ready after {limit:g} s: {why}")
        except (Unwell, NodeLost) as error:
            # If the process ends now, its output says more than this error.
            await asyncio.sleep(LAST_WORDS_SECONDS)
            return self._lost("failed", str(error))
        self._properties = properties
        self.use.ready()
        self.load.end()
        if look := watch.process.look():
            self._memory_limit = growth.limit(self.spec, look.memory)
            watch.memory_limit = self._memory_limit
        self._become("ready", await self._fallbacks.helped(self.spec.id))
        watch.ready = True
        vision = properties.vision
        watchdog = watchdog_of(self.spec, self._clock(), vision=vision)
        return await watch.decoding(watchdog)

    async def _readiness(self, probe: Probe) -> Properties:
        while not await probe.healthy():
            await asyncio.sleep(self._intervals.ready)
            if self.load.due():
                self._changed()
        await probe.first_work(self.spec.role)
        return await properties_of(probe, self.spec, self._engine.build)

    def _lost(self, state: EngineState, reason: str, how: Ended = "died") -> str:
        """Stop claims at once; the process is still to be ended."""
        asked = self.slots.busy > 0 or self.use.just_asked
        self._lost_requests = self.use.ready_at is not None and asked
        self._ended_how = how
        self.load.stop()
        self._become(state, reason)
        return reason

    def _become(self, state: EngineState, reason: str | None) -> None:
        self._state, self._reason = state, reason
        self._changed()

    def _slots_changed(self) -> None:
        self._events.update(self.slots)
        self._changed()

"""Sleeping: the machine sleeps by order of a balancer, unless it is in use.

Only its owner can allow that, by the setting `sleep`. What is in use stays awake: by
people who are logged in, by other programs, by requests, downloads and loads, by groups
of other nodes that it computes for, and because a balancer runs here. Balancers are
told before, and know then that the machine has not failed.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from msgspec import structs

from edgeserve.config.machine import KINDS_OF_SLEEP
from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EdgeserveError
from edgeserve.orders.sleep import SleepOrder
from edgeserve.reports.hardware import Hardware
from edgeserve.reports.sleep import How, NetworkCard, Sleep
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.runtime.clock import asleep
from node.hardware.cards import cards
from node.hardware.gpus import failure_of
from node.hardware.owner import in_use
from node.state import NodeState

log = logging.getLogger(__name__)

LOOKING = declared("use of the machine")
SLEEPING = declared("sleep", "never")

LOOK_SECONDS = 30.0
"""Between two looks at who uses the machine; an order looks again."""

NEWS_SECONDS = 0.5
"""So long balancers have to hear of it before the machine sleeps."""

ACT_SECONDS = 60.0
"""How long the command may take, and the machine to sleep after it."""

QUIET_SECONDS = 60.0
"""So long the engines must have had no request of any balancer."""

JUST_ANSWERED = "it answered a request a moment ago"

SLEPT = 1.0
"""The clocks differ by more than this after the machine has slept."""

COMMANDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("suspend", "Linux"): ("systemctl", "suspend", "--check-inhibitors=yes"),
    ("stop", "Linux"): ("systemctl", "poweroff", "--check-inhibitors=yes"),
    ("suspend", "Darwin"): ("pmset", "sleepnow"),
    ("stop", "Darwin"): ("shutdown", "-h", "now"),
}


class MustNotSleep(EdgeserveError):
    """The owner of the machine has not allowed it to sleep."""

    status = 409
    code = "sleep_not_allowed"

    def __init__(self) -> None:
        super().__init__(
            "its owner has not allowed it: `--sleep suspend` at `edgeserve node start`"
            " does"
        )


class InUse(EdgeserveError):
    """The machine is in use."""

    status = 409
    code = "machine_in_use"

    def __init__(self, why: str) -> None:
        super().__init__(f"it stays awake: {why}")


Look = Callable[[Hardware, bool], str]
Act = Callable[[], str]


@asynccontextmanager
async def sleeping(state: NodeState, settings: NodeSettings) -> AsyncGenerator[Sleeper]:
    """Take orders to sleep for the length of the block."""
    async with background() as tasks:
        sleeper = Sleeper(state, settings, tasks)
        if sleeper.how is not None:
            tasks.start(LOOKING, sleeper.watch)
        yield sleeper


class Sleeper:
    """Decides about orders to sleep, and carries them out.

    `look` says what the machine is in use for, given its hardware and whether its
    engines work; `act` sends it to sleep, and returns why that failed.
    """

    def __init__(
        self,
        state: NodeState,
        settings: NodeSettings,
        tasks: Tasks,
        look: Look = lambda hardware, working: in_use(hardware, working=working),
        act: Act | None = None,
        reached_by: Callable[[], tuple[NetworkCard, ...]] = cards,
    ) -> None:
        self.how: How | None = how(settings.sleep)
        self._state, self._tasks = state, tasks
        self._look, self._reached_by = look, reached_by
        self._until = 0.0
        self._act = act or partial(failure_of, command(settings.sleep), ACT_SECONDS)

    async def watch(self) -> None:
        """Report, again and again, whether the machine may sleep now."""
        while True:
            await self._renew()
            await asyncio.sleep(LOOK_SECONDS)

    async def order(self, order: SleepOrder) -> Sleep:
        """Let the machine sleep, soon. Raises MustNotSleep, InUse."""
        if self.how is None:
            raise MustNotSleep
        sleep = await self._renew()
        if sleep.asleep:
            return sleep
        if sleep.in_use and not (order.now and sleep.in_use == JUST_ANSWERED):
            raise InUse(sleep.in_use)
        sleep = structs.replace(sleep, asleep=True, by=order.by)
        log.info("the machine goes to sleep (%s): %s", self.how, order.why or "ordered")
        # Whatever fails, a machine that is awake serves again after this.
        self._until = monotonic() + 3 * ACT_SECONDS
        self._state.rest(sleep)
        self._tasks.start(SLEEPING, self._sleep)
        return sleep

    async def _renew(self) -> Sleep:
        """Look who uses the machine, and report it."""
        how = self.how
        assert how is not None  # noqa: S101 - asked before
        found, reached_by = await asyncio.to_thread(self._seen)
        old = self._state.sleep
        # The machine may have been sent to sleep meanwhile.
        if old is not None and old.asleep and monotonic() < self._until:
            return old
        # What may have begun while the thread looked counts, too.
        now = Sleep(
            how=how,
            in_use=self._work() or found or self._just_answered(),
            cards=reached_by,
        )
        self._state.rest(now)
        return now

    def _seen(self) -> tuple[str, tuple[NetworkCard, ...]]:
        hardware = self._state.hardware.latest
        return self._look(hardware, self._works()), self._reached_by()

    def _works(self) -> bool:
        return any(each.slots.busy for each in self._state.supervisors)

    def _work(self) -> str:
        """Say what the node itself does; "" where that is nothing."""
        state = self._state
        if state.left:
            return "its node is shutting down"
        if state.followed_here:
            return "a balancer runs there"
        if self._works() or state.relayed.busy:
            return "it answers a request"
        for each in state.workers:
            return (
                f"it computes for a group of {each.variant};"
                f" `edgeserve models group {each.variant} --dissolve` ends that"
            )
        if any(not each.over for each in state.pulls):
            return "it fetches a model"
        if any(each.state == "loading" for each in state.engines().values()):
            return "it loads a model"
        return ""

    def _just_answered(self) -> str:
        used = (each.use.quiet_seconds for each in self._state.supervisors)
        return JUST_ANSWERED if any(each < QUIET_SECONDS for each in used) else ""

    async def _sleep(self) -> None:
        slept = asleep()
        await asyncio.sleep(NEWS_SECONDS)
        problem = await asyncio.to_thread(self._act)
        if not problem:
            problem = await _over(slept)
        if problem:
            log.warning("the machine does not sleep: %s", problem)
        old = self._state.sleep
        assert old is not None  # noqa: S101 - it sleeps
        self._state.rest(structs.replace(old, asleep=False, by="", in_use=problem))


async def _over(slept: float) -> str:
    """Wait until the machine has slept; say so if it does not.

    A machine that is switched off ends this process instead.
    """
    for _ in range(int(ACT_SECONDS)):
        if asleep() - slept > SLEPT:
            return ""
        await asyncio.sleep(1)
    return f"it is awake {ACT_SECONDS:.0f} s after it was told to sleep"


def how(setting: str) -> How | None:
    """Return what the setting allows; None for `off`. Pure."""
    match setting:
        case "off":
            return None
        case "suspend" | "stop":
            return setting
        case _:
            return "command"


def command(setting: str) -> tuple[str, ...]:
    """Return the program that sends this machine to sleep."""
    if setting in KINDS_OF_SLEEP:
        return COMMANDS.get((setting, platform.system()), ("false",))
    return "sh", "-c", setting

"""What is tried, in which order, and what is written down of it."""

import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EngineUnavailable
from edgeserve.wire import Launch
from node.engines.base import Command, Engine, EngineSpec
from node.planning.fit import Fitted, Load, Room, fit
from node.planning.planner import PlannedEngine
from node.supervision.fallbacks import Attempt, Ending, StartupFallbacks, ended
from tests.fakes.engines import FakeEngine, a_spec, watching
from tests.node.shapes import facts

TUNED = a_spec(launch=Launch(slots=8, context=2048, batch=128, threads=2))
UNTUNED = a_spec(launch=Launch(slots=2, context=2048, batch=128, threads=2))
CRASHED = Ending(reason="killed by SIGSEGV", died=True, crashed=True)
NO_MEMORY = Ending(reason="out of memory", died=True, no_memory=True)
NATIVE, BUNDLED = FakeEngine(), FakeEngine(("--slots", "2"))


def placed(spec: EngineSpec) -> PlannedEngine:
    load, room = Load(facts=facts(4.0)), Room(cores=4, memory=2**35)
    found = fit(load, NodeSettings(), room)
    assert isinstance(found, Fitted)
    return PlannedEngine(spec=spec, load=load, room=room, fitted=found, speed=1.0)


@dataclass
class Pretended:
    """Ways out, and what was written down."""

    is_tuned: bool = False
    falls_back: bool = True
    unavailable: bool = False
    written: list[str] = field(default_factory=list[str])

    def untuned(self) -> EngineSpec | None:
        return UNTUNED

    def bundled(self) -> tuple[Engine, PlannedEngine]:
        if self.unavailable:
            raise EngineUnavailable("no bundled engine for Plan9")
        return BUNDLED, placed(UNTUNED)

    def tuning_failed(self, why: str) -> None:
        self.written.append(f"tuning: {why}")

    def crashed(self, why: str) -> str | None:
        self.written.append(f"crash: {why}")
        return f"served by the bundled engine: {why}"


NOW = Attempt(NATIVE, TUNED)


async def test_a_tuned_engine_that_ends_at_the_start_is_tried_untuned_once() -> None:
    ways = Pretended(is_tuned=True, falls_back=False)
    fallbacks = StartupFallbacks(ways)
    for ending in (CRASHED, NO_MEMORY, Ending(reason="killed", died=True)):
        attempt = await StartupFallbacks(ways).after(ending, NOW)
        assert attempt is not None
        assert attempt.spec == UNTUNED

    first = await fallbacks.after(CRASHED, NOW)

    assert first is not None
    assert "tuned settings: killed by SIGSEGV" in first.why
    assert ways.written == []  # nobody knows yet whether that helps
    assert await fallbacks.after(CRASHED, first) is None


async def test_the_tuning_is_marked_when_the_engine_starts_without() -> None:
    ways = Pretended(is_tuned=True)
    fallbacks = StartupFallbacks(ways)
    await fallbacks.after(CRASHED, NOW)

    note = await fallbacks.helped("a")

    assert ways.written == ["tuning: killed by SIGSEGV"]
    assert note is not None
    assert note.startswith("runs untuned")
    assert await fallbacks.helped("a") == note
    assert len(ways.written) == 1


async def test_a_tuning_is_not_at_fault_where_memory_is_short_without_it_too() -> None:
    ways = Pretended(is_tuned=True)
    fallbacks = StartupFallbacks(ways)
    on_gpu = a_spec(launch=replace_layers(-1), layers=33)
    await fallbacks.after(NO_MEMORY, NOW)
    less = await fallbacks.after(NO_MEMORY, Attempt(NATIVE, on_gpu))

    assert less is not None
    assert less.spec.launch.gpu_layers == 29
    assert await fallbacks.helped("a") is None
    assert ways.written == []


def replace_layers(count: int) -> Launch:
    return Launch(slots=1, context=512, batch=64, threads=1, gpu_layers=count)


async def test_two_crashes_while_loading_bring_the_bundled_engine() -> None:
    ways = Pretended()
    fallbacks = StartupFallbacks(ways)

    assert await fallbacks.after(CRASHED, NOW) is None
    attempt = await fallbacks.after(CRASHED, NOW)

    assert attempt is not None
    assert attempt.engine == BUNDLED
    assert ways.written == []
    assert await fallbacks.helped("a") == "served by the bundled engine: " + (
        "killed by SIGSEGV"
    )
    assert ways.written == ["crash: killed by SIGSEGV"]


async def test_what_the_bundled_engine_cannot_serve_is_not_remembered() -> None:
    ways = Pretended()
    fallbacks = StartupFallbacks(ways)
    await fallbacks.after(CRASHED, NOW)
    attempt = await fallbacks.after(CRASHED, NOW)
    assert attempt is not None

    assert await fallbacks.after(CRASHED, attempt) is None
    assert ways.written == []


@pytest.mark.parametrize(
    "ending",
    [
        replace(CRASHED, ready=True),
        NO_MEMORY,
        Ending(reason="killed by SIGKILL", died=True),
        Ending(reason="not ready after 600 s"),
    ],
)
async def test_another_engine_does_not_help_against(ending: Ending) -> None:
    fallbacks = StartupFallbacks(Pretended())

    for _ in range(5):
        assert await fallbacks.after(ending, NOW) is None


async def test_a_crash_after_it_was_ready_starts_the_count_anew() -> None:
    fallbacks = StartupFallbacks(Pretended())

    assert await fallbacks.after(CRASHED, NOW) is None
    await fallbacks.helped("a")
    assert await fallbacks.after(CRASHED, NOW) is None


async def test_a_named_engine_has_no_fallback() -> None:
    fallbacks = StartupFallbacks(Pretended(falls_back=False))

    for _ in range(5):
        assert await fallbacks.after(CRASHED, NOW) is None


async def test_without_a_bundled_engine_the_reason_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fallbacks = StartupFallbacks(Pretended(unavailable=True))

    for _ in range(3):
        assert await fallbacks.after(CRASHED, NOW) is None
    assert caplog.text.count("Plan9") == 1


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        (-signal.SIGSEGV, "warming up", Ending(died=True, crashed=True)),
        (1, "unknown model architecture", Ending(died=True, crashed=True)),
        (-signal.SIGKILL, "loading", Ending(died=True)),
        (1, "cudaMalloc failed: out of memory", Ending(died=True, no_memory=True)),
        (1, "couldn't bind HTTP server socket, hostname: 127.0.0.1", Ending()),
    ],
)
def test_an_ending_is_read_from_status_and_output(
    status: int, line: str, expected: Ending
) -> None:
    assert ended(status, [line]) == expected


class Segfaulting(FakeEngine):
    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:  # noqa: ARG002 - the protocol's
        return Command(("/bin/sh", "-c", "kill -SEGV $$"), {})


class TooMany(FakeEngine):
    """Cannot serve more than two slots."""

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        engine: Any = Segfaulting() if spec.launch.slots > 2 else FakeEngine()
        made: Command = engine.command(spec, port=port, api_key=api_key)
        return made


async def test_an_engine_that_crashes_twice_is_replaced_and_the_report_says_why(
    tmp_path: Path,
) -> None:
    ways, settings = Pretended(), NodeSettings(state_dir=tmp_path, load_seconds=20)
    async with watching(
        Segfaulting(), TUNED, settings, fallbacks=StartupFallbacks(ways)
    ) as (
        supervisor,
        watched,
    ):
        report = await watched.until("ready")

        assert report.epoch == 3
        assert report.slots == supervisor.slots.total == 2
        assert report.reason is not None
        assert report.reason.startswith("served by the bundled engine: killed by SIG")
        assert "quarantined" not in watched.states
        assert len(ways.written) == 1


async def test_a_tuned_engine_that_does_not_start_runs_untuned_at_the_next_start(
    tmp_path: Path,
) -> None:
    ways, settings = (
        Pretended(is_tuned=True),
        NodeSettings(state_dir=tmp_path, load_seconds=20),
    )
    async with watching(
        TooMany(), TUNED, settings, fallbacks=StartupFallbacks(ways)
    ) as (
        _,
        watched,
    ):
        report = await watched.until("ready")

        assert report.epoch == 2
        assert report.launch == UNTUNED.launch
        assert report.reason is not None
        assert "node tune" in report.reason

import asyncio
import errno
import itertools
import os
import signal
import socket
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import FleetBusy, NoNode
from edgeserve.wire import Launch
from node.engines.base import Command, EngineSpec
from node.engines.probe import Probe
from node.engines.process import free_port
from tests.fakes.aiohttp_relay import upstream
from tests.fakes.engines import FakeEngine, a_spec, watching
from tests.node.building import answer
from tests.patience import PATIENCE


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(state_dir=tmp_path, load_seconds=PATIENCE, stuck_seconds=600)


def running() -> set[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return {each for each in found if each.status() != psutil.STATUS_ZOMBIE}


OTHERS: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Other tests keep processes for the whole session: they are not ours."""
    OTHERS.clear()
    OTHERS.update(running())


def children() -> list[psutil.Process]:
    """Processes that the test has started and that still run."""
    return list(running() - OTHERS)


async def test_an_engine_is_ready_after_a_first_token(settings: NodeSettings) -> None:
    slow = FakeEngine(("--load-seconds", "0.3"))
    async with watching(slow, a_spec(), settings) as (supervisor, watched):
        report = await watched.until("ready")

        assert report.slots == 2
        assert report.context == 4096  # what /props said, not what was asked for
        assert report.epoch == 1
        assert await answer(supervisor) == 200
        assert watched.states == ["loading", "ready"]


async def test_an_engine_that_loads_but_cannot_generate_is_not_ready(
    settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.supervision.supervisor.LAST_WORDS_SECONDS", 0.05)
    broken = FakeEngine(("--fault", "error"))
    async with watching(broken, a_spec(), settings) as (supervisor, watched):
        report = await watched.until("failed")

        assert report.reason is not None
        assert "answered 500" in report.reason
        with pytest.raises(NoNode, match="failed"), supervisor.claim():
            pass
    assert "ready" not in watched.states


async def test_claims_are_counted_and_refused_beyond_the_slots(
    settings: NodeSettings,
) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        await watched.until("ready")
        with supervisor.claim(), supervisor.claim():
            assert supervisor.report.state == "busy"
            assert supervisor.report.busy == 2
            with pytest.raises(FleetBusy) as refused, supervisor.claim():
                pass
            drained = asyncio.create_task(supervisor.drained())
        await asyncio.wait_for(drained, PATIENCE)

        assert refused.value.retry_after == 1
        assert supervisor.report.busy == 0
        assert [report.busy for report in watched.reports][-5:] == [0, 1, 2, 1, 0]


async def test_a_loading_engine_takes_no_claims(settings: NodeSettings) -> None:
    slow = FakeEngine(("--load-seconds", "60"))
    async with watching(slow, a_spec(), settings) as (supervisor, _):
        with pytest.raises(NoNode, match="loading"), supervisor.claim():
            pass


async def test_a_crashed_engine_comes_back_with_another_key_and_epoch(
    settings: NodeSettings,
) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        await watched.until("ready")
        before = supervisor.api_key
        [engine] = children()
        engine.kill()
        failed = await watched.until("failed")
        again = await watched.until("ready", epoch=2)

        assert failed.reason is not None
        assert "SIGKILL" in failed.reason
        assert again.epoch == 2
        assert supervisor.api_key != before
        assert await answer(supervisor) == 200


class Crashing(FakeEngine):
    """Says why, and dies before it listens; a shell does that sooner than Python."""

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:  # noqa: ARG002 - the protocol's
        said = "error: tensor 7 is missing"
        return Command(("/bin/sh", "-c", f"echo '{said}'; exit 3"), {})


async def test_repeated_crashes_end_in_quarantine_with_the_engines_own_words(
    settings: NodeSettings,
) -> None:
    async with watching(Crashing(), a_spec(), settings) as (supervisor, watched):
        report = await watched.until("quarantined")

        assert report.epoch == 4
        assert report.reason is not None
        assert "tensor 7 is missing" in report.reason
        assert "restart the node" in report.reason
        with pytest.raises(NoNode, match="tensor 7"), supervisor.claim():
            pass
        assert children() == []


async def test_another_model_file_lifts_the_quarantine(
    settings: NodeSettings, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"bad")
    async with watching(Crashing(), a_spec(path=file), settings) as (_, watched):
        await watched.until("quarantined")
        file.write_bytes(b"better")

        assert (await watched.until("failed", epoch=5)).epoch == 5


async def test_a_frozen_process_is_replaced(settings: NodeSettings) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        await watched.until("ready")
        [engine] = children()
        with supervisor.claim():
            engine.send_signal(signal.SIGSTOP)
            stuck = await watched.until("stuck")
            await watched.until("ready", epoch=2)

    assert stuck.reason == "its process is stopped"


async def test_a_process_that_does_nothing_and_is_silent_is_replaced(
    settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deadlock, as far as anybody outside can tell.
    monkeypatch.setattr("node.engines.process.psutil.STATUS_STOPPED", "none such")
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        await watched.until("ready")
        [engine] = children()
        with supervisor.claim():
            engine.send_signal(signal.SIGSTOP)
            stuck = await watched.until("stuck")
            await watched.until("ready", epoch=2)

    assert stuck.reason == "its process does nothing and does not answer"


async def test_a_slot_is_busy_until_the_engine_has_let_go_of_it(
    settings: NodeSettings,
) -> None:
    late = FakeEngine(("--notice", "1", "--decode", "20"))
    async with (
        watching(late, a_spec(), settings) as (supervisor, watched),
        upstream(connect_seconds=2.0) as ask,
    ):
        await watched.until("ready")
        probe = Probe(ask, supervisor.origin, supervisor.api_key)

        async def has_work() -> bool:
            found = await probe.counters()
            return found is not None and found.requests > 0

        async def client() -> None:
            with supervisor.claim():
                await answer(supervisor, tokens=5000)

        leaving = asyncio.create_task(client())
        async with asyncio.timeout(PATIENCE):
            while not await has_work():
                await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.wait([leaving])
        at_first = supervisor.slots.busy
        async with asyncio.timeout(PATIENCE):
            while supervisor.slots.busy:
                await asyncio.sleep(0.02)

        assert at_first == 1
        assert not await has_work()
        assert supervisor.slots.left == 0


class Loading(FakeEngine):
    """Loads for ever; a shell says so sooner than Python."""

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:  # noqa: ARG002 - the protocol's
        said = "error: disk is slow"
        return Command(("/bin/sh", "-c", f"echo '{said}'; exec sleep 60"), {})


async def test_an_engine_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    settings = NodeSettings(state_dir=tmp_path, load_seconds=2)
    async with watching(Loading(), a_spec(), settings) as (_, watched):
        report = await watched.until("failed")

        assert report.reason is not None
        assert report.reason.startswith("not ready after 2 s")
        assert "disk is slow" in report.reason


async def test_a_port_taken_meanwhile_costs_one_restart(settings: NodeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = itertools.chain([taken], iter(free_port, None))
        async with watching(
            FakeEngine(), a_spec(), settings, pick_port=lambda: next(ports)
        ) as (supervisor, watched):
            report = await watched.until("ready", epoch=2)

    assert report.epoch == 2
    assert supervisor.origin.port != taken


async def test_nothing_of_the_engine_is_left_when_the_block_ends(
    settings: NodeSettings, tmp_path: Path
) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (_, watched):
        await watched.until("ready")
        assert len(children()) == 1

    assert children() == []
    assert list((tmp_path / "engines" / "running").iterdir()) == []


async def test_an_engine_that_ignores_sigterm_is_killed(
    settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.engines.process.STOP_SECONDS", 0.2)
    async with watching(FakeEngine(("--deaf",)), a_spec(), settings) as (_, watched):
        await watched.until("ready")

    assert children() == []


class TooLong(FakeEngine):
    """Has a command that the kernel refuses."""

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        asked = super().command(spec, port=port, api_key=api_key)
        return Command((*asked.argv, "x" * 2**20), asked.env)


async def test_a_program_that_cannot_be_started_is_a_reason_not_a_crash(
    settings: NodeSettings,
) -> None:
    async with watching(TooLong(), a_spec(), settings) as (_, watched):
        report = await watched.until("failed")

    assert report.reason is not None
    assert report.reason.startswith("cannot be started:")


@pytest.mark.parametrize("way", ["a file in the way", "a full disk"])
async def test_an_engine_serves_where_nothing_can_be_written_down(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "file"
    if way == "a full disk":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        state.write_text("in the way of the state folder")
    settings = NodeSettings(state_dir=state, load_seconds=PATIENCE)
    async with watching(FakeEngine(), a_spec(), settings) as (_, watched):
        await watched.until("ready")


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SmallGpu(FakeEngine):
    """Runs out of memory with more than nine layers on the GPU, as CUDA says it."""

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        layers = spec.launch.gpu_layers
        if 0 <= layers <= 9:
            return super().command(spec, port=port, api_key=api_key)
        said = "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed"
        return Command(("/bin/sh", "-c", f"echo '{said}: out of memory'; exit 1"), {})


async def test_too_much_on_the_gpu_steps_down_until_it_serves(
    settings: NodeSettings,
) -> None:
    launch = Launch(slots=1, context=512, batch=64, threads=1, gpu_layers=-1)
    spec = a_spec(launch=launch, layers=33)
    async with watching(SmallGpu(), spec, settings) as (supervisor, watched):
        report = await watched.until("ready")

        assert report.launch.gpu_layers == 9
        assert report.epoch == 7
        assert "failed" not in watched.states
        assert await answer(supervisor) == 200

import asyncio
import errno
import sys
from pathlib import Path

import psutil
import pytest

from edgeserve.runtime.threads import SPIN
from node.engines.base import Command
from node.engines.process import running
from tests.patience import PATIENCE


def python(script: str, **env: str) -> Command:
    return Command((sys.executable, "-c", script), env)


async def test_output_and_status_are_kept(tmp_path: Path) -> None:
    command = python("import sys; print('one'); print('two', file=sys.stderr); exit(3)")
    async with running(command, tmp_path) as process:
        assert await process.ended() == 3

    assert sorted(process.output.lines) == ["one", "two"]


async def test_threads_sleep_while_they_wait_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv(SPIN, raising=False)
    said = list[str]()
    for _ in range(2):
        asks = f"import os; print(os.environ['OMP_WAIT_POLICY'], os.environ['{SPIN}'])"
        async with running(python(asks, A="b"), tmp_path) as process:
            await process.ended()
        said += process.output.lines
        monkeypatch.setenv("OMP_WAIT_POLICY", "active")
        monkeypatch.setenv(SPIN, "7")

    assert said == ["passive 1000", "active 7"]


async def test_a_line_without_end_does_not_stop_the_reading(tmp_path: Path) -> None:
    command = python("print('x' * 200_000); print('after')")
    async with running(command, tmp_path) as process:
        assert await process.ended() == 0

    assert process.output.lines[-1] == "after"


GROUP = "sleep 60 & echo $!; wait"


async def test_what_the_engine_started_is_ended_with_it(tmp_path: Path) -> None:
    command = Command(("/bin/sh", "-c", GROUP), {})
    async with running(command, tmp_path) as process:
        async with asyncio.timeout(PATIENCE):
            while not process.output.lines:
                await asyncio.sleep(0.02)
        started = psutil.Process(int(process.output.lines[0]))

    _, alive = await asyncio.to_thread(psutil.wait_procs, [started], timeout=PATIENCE)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


async def test_without_descriptors_a_look_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the node would take its own trouble for the engine's, and end it."""

    def no_more(_: int) -> psutil.Process:
        raise OSError(errno.EMFILE, "Too many open files")

    async with running(python("input()"), tmp_path) as process:
        with monkeypatch.context() as patched:
            patched.setattr(psutil, "Process", no_more)
            assert process.look() is None

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from edgeserve.runtime.tether import PARENT
from node.engines.bundled import PARAMETERS
from node.engines.process import Record, alive, created_at, recorded, sweep
from tests.patience import PATIENCE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "engines" / "running"
    found.mkdir(parents=True)
    return found


def a_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=-1, start_new_session=True
    )


def write(folder: Path, **changes: float) -> Path:
    me, mine = os.getpid(), created_at(os.getpid()) or 0.0
    given = {"engine": me, "engine_created": mine, "agent": me, "agent_created": mine}
    path = folder / "1.json"
    path.write_bytes(msgspec.json.encode(given | changes))
    return path


def test_an_engine_whose_agent_is_gone_is_ended(tmp_path: Path, folder: Path) -> None:
    with a_process() as engine:
        created = created_at(engine.pid)
        assert created is not None
        path = write(folder, engine=engine.pid, engine_created=created, agent=2**22 + 1)

        sweep(tmp_path)

        assert engine.wait(timeout=PATIENCE) == -9
        assert not path.exists()


def test_another_process_with_the_old_id_is_left_alone(
    tmp_path: Path, folder: Path
) -> None:
    with a_process() as stranger:
        path = write(folder, engine=stranger.pid, engine_created=5.0, agent=2**22 + 1)

        sweep(tmp_path)

        assert stranger.poll() is None
        assert not path.exists()
        stranger.communicate(b"\n", timeout=PATIENCE)


def test_the_engine_of_a_living_agent_is_left_alone(
    tmp_path: Path, folder: Path
) -> None:
    with a_process() as engine:
        created = created_at(engine.pid)
        assert created is not None
        path = write(folder, engine=engine.pid, engine_created=created)

        sweep(tmp_path)

        assert engine.poll() is None
        assert path.exists()
        engine.communicate(b"\n", timeout=PATIENCE)


def test_a_record_that_makes_no_sense_is_dropped(tmp_path: Path, folder: Path) -> None:
    (folder / "7.json").write_text("{")

    sweep(tmp_path)

    assert list(folder.iterdir()) == []


def test_a_record_lasts_as_long_as_its_engine(tmp_path: Path, folder: Path) -> None:
    with recorded(os.getpid(), tmp_path):
        [path] = folder.iterdir()
        record = msgspec.json.decode(path.read_bytes(), type=Record)
        assert alive(record.engine, record.engine_created)
        assert alive(record.agent, record.agent_created)

    assert list(folder.iterdir()) == []


AGENT = """
import subprocess, sys
from edgeserve.runtime.tether import tethered
host = [sys.executable, "-m", "node.engines.bundled_host"]
subprocess.Popen(tethered(host) if sys.argv[1] == "tethered" else host).wait()
"""

LIBRARY = """
class CommonParams: ...

class Server:
    def __init__(self, parameters):
        print("serving", flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which a library without a model takes xllamacpp's place."""
    (tmp_path / "xllamacpp.py").write_text(LIBRARY)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    return {**os.environ, "PYTHONPATH": paths, PARAMETERS: "{}"}


@contextmanager
def agent(environment: dict[str, str], way: str) -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, way],
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:  # where the test fails
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def ends_with(agent: subprocess.Popen[bytes]) -> bool:
    """Kill the agent. The pipe ends when its engine is gone, too."""
    agent.send_signal(signal.SIGKILL)
    agent.wait(timeout=PATIENCE)
    assert agent.stdout is not None
    end = time.monotonic() + PATIENCE
    while select.select([agent.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        if not agent.stdout.read(99):
            return True
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


@linux
@pytest.mark.parametrize("way", ["tethered", "untied"])
def test_an_engine_ends_with_its_agent_even_where_exec_has_untied_it(
    environment: dict[str, str], way: str
) -> None:
    """As exec does with an interpreter that has capabilities."""
    with agent(environment, way) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"serving\n"

        assert ends_with(started)


@linux
@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.08, 0.12, 0.17, 0.24])
def test_no_engine_outlives_an_agent_killed_while_it_starts(
    environment: dict[str, str], seconds: float
) -> None:
    with agent(environment, "tethered") as started:
        time.sleep(seconds)

        assert ends_with(started)


def test_an_engine_whose_agent_is_already_gone_does_not_start(
    environment: dict[str, str],
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(timeout=PATIENCE)

    done = subprocess.run(
        [sys.executable, "-m", "node.engines.bundled_host"],
        env={**environment, PARENT: str(gone.pid)},
        capture_output=True,
        timeout=PATIENCE,
    )

    assert (done.returncode, done.stdout) == (1, b"")

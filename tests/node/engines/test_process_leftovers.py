import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

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

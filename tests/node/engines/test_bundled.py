import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EngineUnavailable
from edgeserve.wire import Launch
from node.engines import bundled as module
from node.engines.bundled import bundled, cpu_flags, explain, refuse_old_cpu
from node.engines.bundled_host import put
from node.supervision.supervisor import Supervisor
from tests.fakes.aiohttp_relay import upstream
from tests.fakes.engines import a_spec, watching
from tests.patience import PATIENCE

SMALL = Launch(slots=2, context=512, batch=128, threads=2)


def test_a_processor_without_avx2_is_refused_with_what_to_do() -> None:
    with pytest.raises(EngineUnavailable, match="AVX2, BMI2, F16C, FMA; build"):
        refuse_old_cpu("x86_64", frozenset(("sse4_2", "avx")))


@pytest.mark.parametrize(
    ("machine", "flags"),
    [
        ("x86_64", frozenset(("avx2", "bmi2", "f16c", "fma", "sse2"))),
        ("aarch64", frozenset(("asimd",))),
        ("x86_64", None),
    ],
)
def test_other_processors_are_let_through(
    machine: str, flags: frozenset[str] | None
) -> None:
    refuse_old_cpu(machine, flags)


def test_the_flags_are_the_first_processors(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nflags : other\n")

    assert cpu_flags(info) == frozenset(("fpu", "avx2", "fma"))
    assert cpu_flags(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (
            1,
            "ImportError: libgomp.so.1: cannot open shared object file",
            "the bundled engine needs OpenMP; `apt-get install libgomp1`",
        ),
        (-4, "", "crashes with signal 4"),
        (1, "Traceback\nImportError: no symbol", "ImportError: no symbol"),
        (3, "", "status 3"),
    ],
)
def test_why_an_import_fails_is_one_sentence(
    status: int, output: str, said: str
) -> None:
    sentence = explain(status, output)

    assert said in sentence
    assert "\n" not in sentence


def test_a_wheel_that_cannot_be_imported_is_noticed_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise ImportError('libgomp.so.1: cannot open shared object file')"
    (tmp_path / "xllamacpp.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(EngineUnavailable, match="apt-get install libgomp1"):
        bundled()


def test_a_machine_without_the_wheel_gets_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)

    with pytest.raises(EngineUnavailable, match="no bundled engine for"):
        bundled()


def test_the_agent_does_not_carry_llama_cpp() -> None:
    bundled()

    assert "xllamacpp" not in sys.modules


def test_the_key_travels_in_the_environment() -> None:
    command = module.Bundled("b1").command(a_spec(), port=9000, api_key="secret")

    assert "secret" not in " ".join(command.argv)
    assert json.loads(command.env[module.PARAMETERS])["api_keys"] == ["secret"]


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Inner:
    number: int = 0


@dataclass
class Target:
    inner: Inner = field(default_factory=Inner)
    colour: Colour = Colour.RED
    names: set[str] = field(default_factory=set[str])
    tensor_split: list[float] = field(default_factory=lambda: [0.0] * 4)
    hosts: list[str] = field(default_factory=lambda: ["a", "b"])
    colours: list[Colour] = field(default_factory=lambda: [Colour.RED])


def test_parameters_are_set_by_path_name_and_length() -> None:
    target = Target()

    for path, value in {
        "inner.number": 7,
        "colour": "BLUE",
        "names": ["x"],
        "tensor_split": [3.0, 1.0],
        "hosts": ["c"],
        "colours": ["BLUE", "RED"],
    }.items():
        put(target, path, value)

    assert target == Target(
        inner=Inner(7),
        colour=Colour.BLUE,
        names={"x"},
        tensor_split=[3.0, 1.0, 0.0, 0.0],
        hosts=["c"],
        colours=[Colour.BLUE, Colour.RED],
    )


async def ask(supervisor: Supervisor, path: str, body: Mapping[str, Any]) -> Any:
    headers = {
        "authorization": f"Bearer {supervisor.api_key}",
        "content-type": "application/json",
    }
    async with (
        upstream(connect_seconds=30) as way,
        way.ask(
            supervisor.origin, "POST", path, headers, json.dumps(body).encode()
        ) as answer,
    ):
        return json.loads(await answer.read())


@pytest.mark.engine
async def test_the_real_engine_becomes_ready_and_talks(
    smollm2: Path, tmp_path: Path
) -> None:
    spec = a_spec(path=smollm2, launch=SMALL)
    settings = NodeSettings(state_dir=tmp_path)
    async with watching(bundled(), spec, settings) as (supervisor, watched):
        report = await watched.until("ready")
        said = await ask(
            supervisor,
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 8},
        )

        assert (report.context, report.slots) == (512, 2)
        assert said["model"] == "fake:Q4_1"  # the alias, not the path
        assert said["usage"]["completion_tokens"] >= 1
        assert "xllamacpp" in report.build


@pytest.mark.engine
@pytest.mark.parametrize("mib", [0, 64])
async def test_a_conversation_that_lost_its_slot_returns_from_the_prompt_cache(
    mib: int, smollm2: Path, tmp_path: Path
) -> None:
    launch = Launch(slots=1, context=512, batch=128, threads=2, cache_ram_mib=mib)
    settings = NodeSettings(state_dir=tmp_path)
    cached: list[int] = []
    async with watching(bundled(), a_spec(path=smollm2, launch=launch), settings) as (
        supervisor,
        watched,
    ):
        report = await watched.until("ready")
        for subject in ("tea", "rain", "tea"):
            prompt = f"All about {subject}: " + f"{subject} and more {subject}. " * 30
            body = {"prompt": prompt, "n_predict": 2}
            said = await ask(supervisor, "/completion", body)
            cached.append(said["timings"]["cache_n"])

    assert report.launch.cache_ram_mib == mib
    assert (cached[-1] > 100) == (mib > 0), cached


@pytest.mark.engine
async def test_the_real_engine_asks_for_its_key(smollm2: Path, tmp_path: Path) -> None:
    spec = a_spec(path=smollm2, launch=SMALL)
    settings = NodeSettings(state_dir=tmp_path)
    async with watching(bundled(), spec, settings) as (supervisor, watched):
        await watched.until("ready")
        supervisor.api_key = "wrong"
        refused = await ask(supervisor, "/v1/chat/completions", {"messages": []})

    assert refused["error"]["type"] == "authentication_error"


@pytest.mark.engine
async def test_the_real_engine_makes_vectors(smollm2: Path, tmp_path: Path) -> None:
    spec = a_spec(
        path=smollm2,
        role="embeddings",
        pooling="mean",
        launch=Launch(slots=1, context=512, batch=512, threads=2),
    )
    settings = NodeSettings(state_dir=tmp_path)
    async with watching(bundled(), spec, settings) as (supervisor, watched):
        await watched.until("ready")
        made = await ask(supervisor, "/v1/embeddings", {"input": ["a cat", "a dog"]})

    assert [len(each["embedding"]) for each in made["data"]] == [576, 576]


@pytest.mark.engine
@pytest.mark.parametrize("content", [b"", b"not a model at all", None])
async def test_a_bad_file_ends_in_quarantine_and_the_agent_lives(
    content: bytes | None, smollm2: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    with smollm2.open("rb") as whole:
        bad.write_bytes(whole.read(2**20) if content is None else content)
    spec = a_spec(path=bad, launch=SMALL)
    async with watching(bundled(), spec, NodeSettings(state_dir=tmp_path)) as (
        _,
        watched,
    ):
        report = await watched.until("quarantined")

    assert report.reason is not None
    assert "failed to load model" in report.reason


AGENT = """
import asyncio, sys
from pathlib import Path
from edgeserve.config.settings import NodeSettings
from node.engines.bundled import bundled
from tests.fakes.engines import a_spec, watching
from edgeserve.wire import Launch

async def main():
    launch = Launch(slots=1, context=512, batch=128, threads=1)
    spec = a_spec(path=Path(sys.argv[1]), launch=launch)
    settings = NodeSettings(state_dir=Path(sys.argv[2]))
    async with watching(bundled(), spec, settings) as (supervisor, watched):
        await watched.until("ready")
        print(supervisor.origin.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
async def test_an_agent_killed_outright_leaves_no_engine_behind(
    smollm2: Path, tmp_path: Path
) -> None:
    root = Path(__file__).parents[3]
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, str(smollm2), str(tmp_path)),
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert agent.stdout is not None
    port = int(await asyncio.wait_for(agent.stdout.readline(), 100))
    [engine] = psutil.Process(agent.pid).children()

    agent.send_signal(signal.SIGKILL)
    await agent.wait()

    await asyncio.to_thread(psutil.wait_procs, [engine], timeout=PATIENCE)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await asyncio.open_connection("127.0.0.1", port)

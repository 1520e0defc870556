"""What is measured, part by part."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgeserve.config.paths import state_dir
from edgeserve.config.settings import NodeSettings
from edgeserve.runtime.threads import openmp_environment
from node.planning.tunings import Tuned
from tests.bench.gpu.load import Figures, load
from tests.bench.gpu.scale import Models, Scale
from tests.bench.gpu.serving import Served, served
from tests.bench.gpu.tuned import tuned

VOCABULARY = 32000
BUILD = state_dir() / "engines" / "current"

SETTINGS: tuple[tuple[str, Tuned], ...] = (
    ("default", Tuned()),
    ("2048 at once", Tuned(ubatch=2048)),
    ("4096 at once", Tuned(batch=4096, ubatch=4096)),
)
"""What may keep a server behind the benchmark, one at a time and together."""

ONE_SETTING = 60.0
"""Seconds that a setting takes on a fast machine; with less left it is not begun."""


@dataclass
class Bench:
    """What all parts need. `say` writes a row down; `left` is the seconds left."""

    models: Models
    scale: Scale
    say: Callable[..., None]
    left: Callable[[], float]
    rehearsal: bool
    part: str = ""

    def row(self, what: str, found: Figures, where: Served, **more: object) -> None:
        """Write down what streams did at an engine."""
        engine = where.engine
        self.say(
            part=self.part, what=what, streams=found.streams, total=found.total,
            together=found.together, one=found.one_decode, prefill=found.one_prefill,
            first_p50=found.first_p50, launch=engine["launch"],
            placement=engine["placement"], build=engine["build"], **more,
        )  # fmt: skip

    def late(self, what: str) -> bool:
        """Whether there is no time for one more setting; writes that down."""
        late = self.left() < (1 if self.rehearsal else ONE_SETTING)
        if late:
            self.say(part=self.part, what=what, note="no time left")
        return late


def ask(where: Served, streams: int, prompt: int, answer: int) -> Figures:
    if where.engine["kind"] != "native":
        raise RuntimeError(f"not the native engine: {where.engine['reason']}")
    name: str = where.engine["variant"]
    return load(
        where.url, name, streams=streams, prompt=prompt, answer=answer,
        vocabulary=VOCABULARY,
    )  # fmt: skip


@contextmanager
def started(
    model: Path,
    *,
    what: Tuned | None = None,
    engines: int = 1,
    **settings: Any,
) -> Generator[Served]:
    """Serve a model with these settings, and with what only a tuning could set."""
    flags = ["--model", str(model)]
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [flag, str(value)]
    here = NodeSettings(models=(str(model),), state_dir=state_dir(), **settings)
    wanted = what or Tuned()
    with (
        tuned(wanted, here),
        served(*flags, engines=engines) as where,
    ):
        launch = where.engine["launch"]
        missing = {k: v for k, v in wanted.changes.items() if launch.get(k) != v}
        if missing:
            raise RuntimeError(f"does not start with {missing}: {launch}")
        yield where


def many(bench: Bench) -> None:
    """Put settings beside llama.cpp's own benchmark, which goes first and last."""
    best = _benchmark(bench)
    for name, what in SETTINGS:
        if bench.late(name):
            continue
        try:
            _many_with(bench, name, what, best)
        except Exception as error:  # noqa: BLE001 - the next setting may work
            bench.say(part="many", what=name, note=str(error)[-300:])
    if not bench.late("llama-batched-bench"):
        _benchmark(bench)


def _benchmark(bench: Bench) -> float:
    scale = bench.scale
    load = scale.prompt, scale.answer
    return batched_bench(bench, bench.models.large, scale.streams, load, "-ngl", "99")


def _many_with(bench: Bench, name: str, what: Tuned, best: float) -> None:
    scale = bench.scale
    shape: dict[str, Any] = {"slots": scale.streams, "context": scale.context}
    with started(bench.models.large, what=what, **shape) as where:
        ask(where, 4, 16, 4)
        runs = [
            ask(where, scale.streams, scale.prompt, scale.answer)
            for _ in range(scale.turns)
        ]
        middle = median(each.total for each in runs)
        found = next(each for each in runs if each.total >= middle)
        share = f"{middle / best:.0%}" if best else ""
        turns = [round(each.total, 1) for each in runs]
        bench.row(name, found, where, share=share, note=str(turns))
        if not what.changes:
            one = ask(where, 1, scale.prompt, scale.answer)
            bench.row("default, one stream", one, where)


def batched_bench(
    bench: Bench, model: Path, streams: int, load: tuple[int, int], *flags: str
) -> float:
    """Return the tokens/s of as many streams; 0 where the tool does not run.

    `load` is the tokens of a prompt and of an answer; it goes through one stream first.
    """
    prompt, answer = load
    command = [
        str(BUILD / "llama-batched-bench"), "-m", str(model), "-b", "2048",
        "-c", str(streams * 2 * (prompt + answer)), "-npp", str(prompt),
        "-ntg", str(answer), "-npl", f"1,{streams}", "-fa", "on",
        "--output-format", "jsonl", *flags,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=openmp_environment()
    )
    best = 0.0
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        found = json.loads(line)
        best = float(found["speed"])
        bench.say(
            part=bench.part, what="llama-batched-bench", streams=found["pl"],
            total=best, together=float(found["speed_tg"]), share="100 %",
        )  # fmt: skip
    if done.returncode:
        bench.say(part=bench.part, what="llama-batched-bench", note=done.stderr[-300:])
    return best


HOLDER = """
import ctypes, glob, sys

def loaded(place):
    try:
        return ctypes.CDLL(place)
    except OSError:
        return None

places = [*glob.glob("/usr/local/cuda*/lib64/libcudart.so*"), "libcudart.so"]
cuda = next(library for library in map(loaded, places) if library)
free, total, got = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
wanted = ctypes.c_size_t(free.value - int(sys.argv[1]))
status = cuda.cudaMalloc(ctypes.byref(got), wanted)
print("held" if status == 0 else f"status {status}", flush=True)
sys.stdin.read()
"""
"""Takes a GPU's memory but for so many bytes, through CUDA's own library."""


def too_large(bench: Bench) -> None:
    """Ask for all layers with most of the GPU's memory taken behind the node's back."""
    if not _gpus() and not bench.rehearsal:
        bench.say(part="toolarge", what="skipped", note="no CUDA device")
        return
    if bench.late("toolarge"):
        return
    holder = "print('held', flush=True); input()" if bench.rehearsal else HOLDER
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(6 << 30)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline().strip()
            if said != "held":
                raise RuntimeError(f"cannot take the GPU's memory: {said}")
            shape: dict[str, Any] = {"gpu_layers": "all", "slots": 1}
            shape["context"] = bench.scale.context
            with started(bench.models.large, **shape) as where:
                found = ask(where, 1, bench.scale.cpu_prompt, bench.scale.cpu_answer)
                epoch = where.engine["epoch"]
                placed = where.engine["placement"]
                note = f"start {epoch} served; layers {placed and placed['gpu_layers']}"
                bench.row("all layers, 6 GB free", found, where, note=note)
        finally:
            process.terminate()


def per_gpu(bench: Bench) -> None:
    """Put one engine across all GPUs beside one on each."""
    count = _gpus()
    if count < 2:
        bench.say(part="pergpu", what="skipped", note=f"{count} CUDA devices")
        return
    scale = bench.scale
    shape: dict[str, Any] = {"slots": scale.streams, "context": scale.context}
    apart: dict[str, Any] = {"per_gpu": True}
    for engines, more in ((1, {}), (count, apart)):
        what = f"{engines} engines on {count} GPUs"
        if bench.late(what):
            continue
        with started(bench.models.large, engines=engines, **shape, **more) as where:
            ask(where, 4 * engines, 16, 4)
            for _ in range(2):
                streams = scale.streams * engines
                found = ask(where, streams, scale.prompt, scale.answer)
                bench.row(what, found, where)


def _gpus() -> int:
    tool = str(BUILD / "llama-server")
    done = subprocess.run([tool, "--list-devices"], capture_output=True, text=True)
    return len(re.findall(r"CUDA\d+:", done.stdout + done.stderr))


def sweep(bench: Bench) -> None:
    """One stream with so many layers on the GPU."""
    scale = bench.scale
    for layers in scale.layers:
        if bench.late(f"{layers} layers"):
            continue
        shape: dict[str, Any] = {"gpu_layers": layers, "slots": 1}
        shape["context"] = 2 * scale.context
        with started(bench.models.small, **shape) as where:
            ask(where, 1, 16, 4)
            runs = [ask(where, 1, scale.prompt, scale.answer // 2) for _ in range(2)]
            best = max(runs, key=lambda each: each.one_decode)
            note = f"reads {best.one_prefill:,.0f}"
            bench.row(f"{layers} layers", best, where, note=note)


def on_cpu(bench: Bench) -> None:
    """Leave the GPU alone, and hold everything to a few cores."""
    _untuned(bench, bench.models.small)


def on_cpu_q8(bench: Bench) -> None:
    """Do the same with the larger file of the same model."""
    _untuned(bench, bench.models.small_q8)


def _untuned(bench: Bench, model: Path) -> None:
    scale = bench.scale
    with _held_to(scale.threads):
        if not bench.late(model.stem):
            load = scale.cpu_prompt, scale.cpu_answer
            flags = ("--device", "none", "-t", str(scale.threads))
            batched_bench(bench, model, scale.few, load, *flags)
        _on_cpu(bench, model, "untuned")


def after_tuning(bench: Bench) -> None:
    """Tune for as long as there is time, and measure again."""
    scale, model = bench.scale, bench.models.small
    shape = ["--gpu-layers", "0", "--slots", str(scale.few), "--context", "512"]
    with _held_to(scale.threads):
        if bench.late("tuning"):
            return
        seconds = max(1, min(scale.tune_seconds, int(bench.left() - 2 * ONE_SETTING)))
        command = [
            sys.executable, "-m", "edgeserve", "node", "tune", str(model), "--json",
            "--seconds", str(seconds), *shape,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        [result] = json.loads(done.stdout)
        bench.say(
            part="tune", what="found", note=json.dumps(result["tuned"]), result=result
        )
        _on_cpu(bench, model, "tuned")


def _on_cpu(bench: Bench, model: Path, said: str) -> None:
    scale = bench.scale
    for streams in (1, scale.few):
        what = f"{model.stem}, {said}"
        if bench.late(what):
            continue
        shape: dict[str, Any] = {"gpu_layers": "0", "slots": streams, "context": 512}
        with started(model, **shape) as where:
            ask(where, streams, 8, 2)
            found = ask(where, streams, scale.cpu_prompt, scale.cpu_answer)
            bench.row(what, found, where)


@contextmanager
def _held_to(cores: int) -> Generator[None]:
    """Use the first so many of the processors we may use; children inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

"""Measure offload and serving on a machine with a GPU and a native build.

    python -m tests.bench.gpu.run sweep 7b.gguf       layers 0, 8, 16, 24, all, auto
    python -m tests.bench.gpu.run many 13b.gguf       32 streams beside batched-bench
    python -m tests.bench.gpu.run toolarge 13b.gguf   all layers where they cannot be
    python -m tests.bench.gpu.run pergpu 13b.gguf     one engine on each GPU
    python -m tests.bench.gpu.run cpu 7b.gguf         one and 8 streams on the CPU

Prints one JSON object a line.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

from edgeserve.places import state_dir
from tests.bench.gpu.load import Figures, load
from tests.bench.gpu.serving import Served, served

VOCABULARY = 32000
BUILD = state_dir() / "engines" / "current"


def say(what: str, where: Served | None = None, **figures: object) -> None:
    placed = where.engine["placement"] if where else None
    launch = where.engine["launch"] if where else None
    print(json.dumps({"what": what, **figures, "placement": placed, "launch": launch}))
    sys.stdout.flush()


def model_of(where: Served) -> str:
    name: str = where.engine["variant"]
    return name


def ask(where: Served, streams: int, prompt: int, answer: int) -> Figures:
    return load(
        where.url,
        model_of(where),
        streams=streams,
        prompt=prompt,
        answer=answer,
        vocabulary=VOCABULARY,
    )


def sweep(model: Path) -> None:
    for layers in ("0", "8", "16", "24", "all", "auto"):
        flags = ("--model", str(model), "--gpu-layers", layers, "--slots", "1")
        with served(*flags, "--context", "2048", "--batch", "512") as where:
            ask(where, 1, 64, 8)
            best = max((ask(where, 1, 512, 64) for _ in range(2)), key=_decode)
            say("sweep", where, layers=layers, **dataclasses.asdict(best))


def _decode(found: Figures) -> float:
    return found.one_decode


def many(model: Path, batches: tuple[str, ...] = ("512", "2048")) -> None:
    batched_bench(model)
    for batch in batches:
        flags = ("--model", str(model), "--gpu-layers", "auto", "--slots", "32")
        with served(*flags, "--context", "1024", "--batch", batch) as where:
            ask(where, 4, 64, 8)
            for turn in range(3):
                found = ask(where, 32, 512, 128)
                say("many", where, batch=batch, turn=turn, **dataclasses.asdict(found))
            one = ask(where, 1, 512, 128)
            say("one", where, batch=batch, **dataclasses.asdict(one))
    batched_bench(model)


def batched_bench(model: Path) -> None:
    tool = BUILD / "llama-batched-bench"
    command = [
        str(tool), "-m", str(model), "-c", "32768", "-b", "2048", "-ub", "512",
        "-npp", "512", "-ntg", "128", "-npl", "1,32", "-ngl", "99",
        "-fa", "on", "--output-format", "jsonl",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            print(json.dumps({"what": "batched-bench", **json.loads(line)}))
    if done.returncode:
        print(json.dumps({"what": "batched-bench failed", "said": done.stderr[-500:]}))
    sys.stdout.flush()


def too_large(model: Path) -> None:
    """Ask for all layers with most of the GPU's memory already taken."""
    holder = (
        "import torch, sys; free, total = torch.cuda.mem_get_info();"
        "x = torch.empty(free - (6 << 30), dtype=torch.uint8, device='cuda');"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            flags = ("--model", str(model), "--gpu-layers", "all", "--slots", "1")
            with served(*flags, "--context", "2048", "--batch", "512") as where:
                found = ask(where, 1, 128, 16)
                epoch = where.engine["epoch"]
                say("toolarge", where, epoch=epoch, **dataclasses.asdict(found))
        finally:
            process.terminate()


def per_gpu(model: Path) -> None:
    count = len(re.findall(r"CUDA\d+:", _devices()))
    base = ("--model", str(model), "--gpu-layers", "auto", "--slots", "32")
    flags = (*base, "--context", "1024", "--batch", "512")
    for engines, more in ((1, ()), (count, ("--per-gpu",))):
        with served(*flags, *more, engines=engines) as where:
            ask(where, 4 * engines, 64, 8)
            for turn in range(2):
                found = ask(where, 32 * engines, 512, 128)
                say("pergpu", where, engines=engines, turn=turn,
                    **dataclasses.asdict(found))  # fmt: skip


def _devices() -> str:
    tool = str(BUILD / "llama-server")
    done = subprocess.run([tool, "--list-devices"], capture_output=True, text=True)
    return done.stdout + done.stderr


def on_cpu(model: Path) -> None:
    """Run it before and after `edgeserve node tune`, both under `taskset -c 0-11`."""
    base = ("--model", str(model), "--gpu-layers", "0")
    for streams in (1, 8):
        flags = (*base, "--slots", str(streams), "--context", "512")
        with served(*flags) as where:
            found = ask(where, streams, 64, 32)
            say("cpu", where, **dataclasses.asdict(found))


JOBS = {
    "sweep": sweep,
    "many": many,
    "toolarge": too_large,
    "pergpu": per_gpu,
    "cpu": on_cpu,
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]))

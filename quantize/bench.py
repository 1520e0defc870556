"""Measure speed with the llama-bench of the engine build that nodes run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from edgeserve.tether import tethered
from quantize.calm import calm
from quantize.jobs import Speed, Speeds

SLOW = 10.0
"""How many times longer than `Speed.seconds` a bench may take before it is ended."""


class _Run(msgspec.Struct, frozen=True):
    """One line of `llama-bench -o json`; rates in tokens per second."""

    build_commit: str
    n_threads: int
    n_prompt: int
    n_gen: int
    samples_ts: tuple[float, ...]


def bench(tool: Path, job: Speed) -> Speeds | None:
    """Return what llama-bench measures; None where it fails or takes too long."""
    command = [
        *(str(tool), "-m", job.model, "-p", str(job.prompt), "-n", str(job.answer)),
        *("-r", str(job.repeats), "-t", str(job.threads), "-o", "json"),
    ]
    try:
        done = subprocess.run(
            tethered(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SLOW * job.seconds,
            check=True,
            env=calm(),
        )
        runs = msgspec.json.decode(done.stdout, type=list[_Run])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    return _speeds(runs)


def _speeds(runs: list[_Run]) -> Speeds | None:
    read = [run for run in runs if run.n_prompt and not run.n_gen]
    wrote = [run for run in runs if run.n_gen and not run.n_prompt]
    if not read or not wrote:
        return None
    return Speeds(
        prefill=tuple(round(rate, 2) for rate in read[0].samples_ts),
        decode=tuple(round(rate, 2) for rate in wrote[0].samples_ts),
        threads=read[0].n_threads,
        by=f"llama-bench {read[0].build_commit}",
    )

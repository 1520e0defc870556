"""Comparison: measure quality, size and speed of variants against their base."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from edgeserve.models.comparison import OWN_TEXT, Comparison, Measured, Quality, Speeds
from edgeserve.models.facts import ModelFacts, read
from edgeserve.runtime.files import fingerprint
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment, threads_for
from quantize.imatrix import native_tool
from quantize.worker.child import Crashed, QuantizerFailed, events, require_library
from quantize.worker.messages import Job, Score, Speed, Step

SLOW = 10.0
"""How many times longer than `Speed.seconds` a bench may take before it is ended."""


class _BenchRun(msgspec.Struct, frozen=True):
    """One line of `llama-bench -o json`; rates in tokens per second."""

    build_commit: str
    n_threads: int
    n_prompt: int
    n_gen: int
    samples_ts: tuple[float, ...]


def bench(tool: Path, job: Speed) -> Speeds | None:
    """Measure speed by llama-bench; None if it fails or takes too long."""
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
            env=openmp_environment(),
        )
        runs = msgspec.json.decode(done.stdout, type=list[_BenchRun])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    return _speeds(runs)


def _speeds(runs: list[_BenchRun]) -> Speeds | None:
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


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of a comparison. `chunks` 0 reads the whole text.

    With `repeats` 0 speed is not measured. `prompt` and `answer` are tokens.
    """

    base: Path
    variants: tuple[Path, ...]
    text: Path = OWN_TEXT
    context: int = 512
    chunks: int = 0
    threads: int = 0
    repeats: int = 3
    prompt: int = 128
    answer: int = 32


class CompareObserver(Protocol):
    """Observer of a comparison: is told each step, for progress bars."""

    def scoring(self, file: Path) -> None:
        """The predictions of a file are being scored."""

    def timing(self, file: Path) -> None:
        """The speed of a file is being measured."""

    def step(self, done: int, of: int) -> None:
        """`done` of `of` parts of the current step are finished."""

    def done(self, measured: Measured) -> None:
        """A file is measured."""


def compare(
    options: CompareOptions, scratch: Path, observer: CompareObserver
) -> Comparison:
    """Measure the base, then each variant against it.

    A temporary folder in `scratch` holds the predictions of the base. Raises
    BrokenModel, and QuantizerFailed with the name of the file.
    """
    files = (options.base, *options.variants)
    facts = [read(file) for file in files]
    require_library()
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".compare-") as folder:
        base, *variants = [_measure(options, each, folder, observer) for each in facts]
    return Comparison(
        base=base,
        dequantized_from=facts[0].dequantized_from,
        variants=tuple(variants),
        text=options.text.name,
        context=options.context,
        machine=f"{platform.node()}, {platform.machine()}, {platform.system()}",
        library=f"llama-cpp-python {version('llama-cpp-python')}",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _measure(
    options: CompareOptions, facts: ModelFacts, folder: str, observer: CompareObserver
) -> Measured:
    observer.scoring(facts.path)
    score = Score(
        model=str(facts.path),
        text=str(options.text),
        base=folder,
        keep=facts.path == options.base,
        context=options.context,
        chunks=options.chunks,
        threads=options.threads,
    )
    quality = _result(score, facts.path, observer, Quality)
    speeds = None
    if options.repeats:
        observer.timing(facts.path)
        speeds = _measure_speeds(options, facts, observer)
    measured = Measured(
        file=facts.path.name,
        type=facts.file_type,
        bytes=facts.file_bytes,
        bits=round(facts.bits, 4),
        fingerprint=fingerprint(facts.path),
        quality=quality,
        speeds=speeds,
    )
    observer.done(measured)
    return measured


def _measure_speeds(
    options: CompareOptions, facts: ModelFacts, observer: CompareObserver
) -> Speeds:
    """Measure by llama-bench if there is one, else by the library.

    If the library crashes with weights repacked for this processor, measure without.
    """
    job = Speed(
        model=str(facts.path),
        prompt=options.prompt,
        answer=options.answer,
        repeats=options.repeats,
        threads=threads_for(options.threads),
    )
    tool = native_tool("llama-bench")
    if tool is not None and (found := bench(tool, job)):
        return found
    try:
        return _result(job, facts.path, observer, Speeds)
    except Crashed:
        plain = msgspec.structs.replace(job, repack=False)
        return _result(plain, facts.path, observer, Speeds)


R = TypeVar("R", Quality, Speeds)


def _result(job: Job, file: Path, observer: CompareObserver, kind: type[R]) -> R:
    """Run a job and return its result."""
    try:
        with events(job) as stream:
            for event in stream:
                if isinstance(event, Step):
                    observer.step(event.done, event.of)
                elif isinstance(event, kind):
                    return event
    except QuantizerFailed as error:
        raise type(error)(f"{file.name}: {error}") from error
    raise QuantizerFailed(f"{file.name}: the worker sent no result")


def ranked(variants: Sequence[Measured]) -> list[Measured]:
    """Sort by divergence from the base, smallest first."""
    return sorted(variants, key=lambda each: each.quality.divergence or (0.0, 0.0))

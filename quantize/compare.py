"""Comparison: measure variants against their base, for quality, size and speed."""

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
from edgeserve.runtime.threads import calm, threads_for
from quantize.imatrix import native_tool
from quantize.worker.child import Crashed, QuantizerFailed, events, require_library
from quantize.worker.messages import Job, Score, Speed, Step

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


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to compare, and how thoroughly. `chunks` 0 reads the whole text.

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


class CompareWatch(Protocol):
    """Hears how far a comparison is; it decides nothing."""

    def scoring(self, file: Path) -> None:
        """A file's predictions are being scored."""

    def timing(self, file: Path) -> None:
        """A file's speed is being measured."""

    def step(self, done: int, of: int) -> None:
        """Part of that is done."""

    def done(self, measured: Measured) -> None:
        """All of a file's figures are known."""


def compare(question: Question, scratch: Path, watch: CompareWatch) -> Comparison:
    """Measure the base, then each variant against it.

    The base's predictions are kept in a folder under `scratch` meanwhile. Raises
    QuantizerFailed, with the file's name, and BrokenModel.
    """
    files = (question.base, *question.variants)
    facts = [read(file) for file in files]
    require_library()
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".compare-") as folder:
        base, *variants = [_measured(question, each, folder, watch) for each in facts]
    return Comparison(
        base=base,
        dequantized_from=facts[0].dequantized_from,
        variants=tuple(variants),
        text=question.text.name,
        context=question.context,
        machine=_machine(),
        library=f"llama-cpp-python {version('llama-cpp-python')}",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _measured(
    question: Question, facts: ModelFacts, folder: str, watch: CompareWatch
) -> Measured:
    watch.scoring(facts.path)
    score = Score(
        model=str(facts.path),
        text=str(question.text),
        base=folder,
        keep=facts.path == question.base,
        context=question.context,
        chunks=question.chunks,
        threads=question.threads,
    )
    quality = _last(score, facts.path, watch, Quality)
    speeds = None
    if question.repeats:
        watch.timing(facts.path)
        speeds = _measured_speeds(question, facts, watch)
    measured = Measured(
        file=facts.path.name,
        type=facts.file_type,
        bytes=facts.file_bytes,
        bits=round(facts.bits, 4),
        fingerprint=fingerprint(facts.path),
        quality=quality,
        speeds=speeds,
    )
    watch.done(measured)
    return measured


def _measured_speeds(
    question: Question, facts: ModelFacts, watch: CompareWatch
) -> Speeds:
    """Ask the build that nodes run, if there is one; else the library.

    Where the library's layout for this processor crashes, it does without.
    """
    job = Speed(
        model=str(facts.path),
        prompt=question.prompt,
        answer=question.answer,
        repeats=question.repeats,
        threads=threads_for(question.threads),
    )
    tool = native_tool("llama-bench")
    if tool is not None and (found := bench(tool, job)):
        return found
    try:
        return _last(job, facts.path, watch, Speeds)
    except Crashed:
        plain = msgspec.structs.replace(job, repack=False)
        return _last(plain, facts.path, watch, Speeds)


R = TypeVar("R", Quality, Speeds)


def _last(job: Job, file: Path, watch: CompareWatch, kind: type[R]) -> R:
    """Run a job and return its result."""
    try:
        with events(job) as heard:
            for event in heard:
                if isinstance(event, Step):
                    watch.step(event.done, event.of)
                elif isinstance(event, kind):
                    return event
    except QuantizerFailed as error:
        raise type(error)(f"{file.name}: {error}") from error
    raise QuantizerFailed(f"{file.name}: no result came")


def _machine() -> str:
    return f"{platform.node()}, {platform.machine()}, {platform.system()}"


def ranked(variants: Sequence[Measured]) -> list[Measured]:
    """Order by divergence from the base, the nearest first."""
    return sorted(variants, key=_divergence)


def _divergence(measured: Measured) -> float:
    pair = measured.quality.divergence
    return pair[0] if pair else 0.0

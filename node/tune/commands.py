"""`edgeserve node tune`: the command that measures settings and shows the result."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgeserve.config.options import settings_options, warn_of_unknown_variables
from edgeserve.config.settings import NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.help import SettingsCommand, examples
from edgeserve.terminal import printable
from node.planning.tunings import Figures, Result, Tuned, percent

NAMES = {
    "slots": "slots",
    "batch": "batch",
    "ubatch": "micro-batch",
    "threads": "threads",
    "threads_batch": "threads for many tokens",
    "spin": "spinning",
    "kv_type": "KV type",
    "flash_attention": "flash attention",
    "speculative": "speculation",
    "draft": "by",
    "draft_tokens": "drafted tokens",
}


class ProgressBar:
    """Draws a bar, and writes a line for each measurement."""

    def __init__(self, progress: Progress, task: TaskID, seconds: float) -> None:
        self._progress = progress
        self._task = task
        self._seconds = seconds
        self._began = time.monotonic()

    def trying(self, changes: Tuned, confirming: bool) -> None:
        """See `TuningObserver`."""
        doing = "confirming" if confirming else "trying"
        self._show(f"{doing} {in_words(changes)}")

    def measured(
        self, changes: Tuned, found: Figures | str, gain: float | None
    ) -> None:
        """See `TuningObserver`."""
        if isinstance(found, str):
            line = f"does not run: {printable(found)}"
        else:
            line = f"{rates(found)} tokens/s ({percent(gain or 0.0)})"
        self._progress.console.print(
            f"{in_words(changes)}: {line}", markup=False, soft_wrap=True
        )
        self._show("")

    def _show(self, doing: str) -> None:
        elapsed = min(time.monotonic() - self._began, self._seconds)
        self._progress.update(self._task, completed=elapsed, doing=doing)


@contextmanager
def watching(seconds: float) -> Generator[ProgressBar]:
    """Draw for the length of the block, on standard error."""
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[doing]}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=seconds, doing="starting")
        yield ProgressBar(progress, task, seconds)


def lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield the result of each variant, and whether nodes will use it."""
    for each in results:
        yield f"{each.key.variant}, {each.summary}"
        yield f"  untuned  {rates(each.untuned)} tokens/s"
        if each.tuned.changes:
            yield f"  tuned    {rates(each.best)} tokens/s"
            yield f"  by       {in_words(each.tuned)}"
            yield "  nodes use it from their next start"
        if each.wanted:
            seconds = math.ceil(each.wanted / 60) * 60
            yield f"  time ran out; `--seconds {seconds}` tries everything"


def rates(figures: Figures) -> str:
    """Return all three figures in words."""
    return (
        f"reads {figures.prefill:.1f}, writes {figures.decode:.1f} for one stream,"
        f" {figures.aggregate:.1f} for all"
    )


def in_words(changes: Tuned) -> str:
    """Return the changes in words; `untuned` where there are none."""
    words = [
        f"{NAMES[name]} {_value(value)}" for name, value in changes.changes.items()
    ]
    return ", ".join(words) or "untuned"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


@click.command(
    cls=SettingsCommand,
    epilog=examples(
        ("edgeserve node tune smollm2-135m-instruct", "about three minutes"),
        ("edgeserve node tune my.gguf --seconds 600", "a large model needs longer"),
        ("edgeserve node tune my.gguf --slots 4", "leave the slots as they are"),
    ),
)
@click.argument("model")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    help="Approximate time to measure, in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options(NodeSettings, aside=("Network", "Access"))
def tune(
    model: str, seconds: float, as_json: bool, config_file: Path | None, **flags: Any
) -> None:
    """Measure settings on this machine, and save the better ones.

    Tries slots, threads, batch sizes, small models of the folder as drafts for a larger
    one, and more. Runs the engine many times, on loopback, with one stream and with
    many; do not use the machine meanwhile. The next
    `edgeserve node start` uses the result, where it still fits in memory and the
    settings name no other. It is never worse than the untuned settings: those win ties.
    """
    flags["models"] = (model,)
    warn_of_unknown_variables()
    settings = resolve(NodeSettings, file=config_file, flags=flags).settings

    from edgeserve.runtime.lifecycle import interruptible
    from node.tune.run import tuned

    with interruptible(), watching(seconds) as observer:
        results = asyncio.run(tuned(settings, seconds, observer))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results)))
        return
    for line in lines(results):
        click.echo(line)

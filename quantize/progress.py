"""Progress bars of `run` and `compare`: one line for each type or file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from edgeserve.models.comparison import Measured
from edgeserve.models.memory import size
from quantize.manifest import MadeVariant
from quantize.plan.variants import Variant


class MakeProgress:
    """Progress of `quantize.make`: one line for each type, all shown from the start."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}
        self.current = TaskID(-1)
        self.calibration: TaskID | None = None

    def calibrating(self, text: Path) -> None:
        """Show that a text is being read; llama-imatrix reports no progress."""
        self.calibration = self.progress.add_task(
            "calibrate", total=None, now=f"reading {text.name}"
        )

    def planned(self, variants: Iterable[Variant]) -> None:
        """Show a line for every type."""
        if self.calibration is not None:
            self.progress.update(self.calibration, total=1, completed=1, now="done")
        for each in variants:
            name = each.type.name
            about = f"about {size(each.file_bytes)}"
            self.tasks[name] = self.progress.add_task(
                name, total=len(each.kinds), start=False, now=about
            )
            if each.remark:
                self.progress.console.print(f"[yellow]{name}: {each.remark}[/]")

    def kept(self, made: MadeVariant) -> None:
        """Show a line as finished by an earlier run."""
        self._finish(made, f"kept, {size(made.bytes)}")

    def begun(self, variant: Variant) -> None:
        """Start the clock of a line."""
        self.current = self.tasks[variant.type.name]
        self.progress.start_task(self.current)

    def tensor(self, index: int, of: int, name: str) -> None:
        """Advance the current line."""
        self.progress.update(self.current, completed=index - 1, total=of, now=name)

    def checking(self, variant: Variant) -> None:
        """Show that the file is being verified."""
        done = len(variant.kinds)
        self.progress.update(self.current, completed=done, now="verifying")

    def made(self, made: MadeVariant) -> None:
        """Show a line as finished."""
        self._finish(made, f"{size(made.bytes)}, {made.bits:.2f} bits per weight")

    def _finish(self, made: MadeVariant, words: str) -> None:
        task = self.tasks[made.recipe.type]
        self.progress.start_task(task)
        total = sum(made.tensors.values())
        self.progress.update(task, completed=total, total=total, now=words)
        self.progress.stop_task(task)


@contextmanager
def progress_bars() -> Generator[Progress]:
    """Draw progress bars on standard error while the block runs."""
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


class CompareProgress:
    """Progress of `quantize.compare`: one line for each file."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.current = TaskID(-1)

    def scoring(self, file: Path) -> None:
        """Add a line for a file."""
        self.current = self.progress.add_task("scoring", total=None, now=file.name)

    def timing(self, file: Path) -> None:
        """Show that the speed of the file is being measured."""
        self.progress.update(self.current, description="timing", now=file.name)

    def step(self, done: int, of: int) -> None:
        """Advance the line."""
        self.progress.update(self.current, completed=done, total=of)

    def done(self, measured: Measured) -> None:
        """Finish the line with the result."""
        value, error = measured.quality.perplexity
        self.progress.update(
            self.current,
            description="done",
            now=f"{measured.file}: perplexity {value:.3f} ± {error:.3f}",
        )
        self.progress.stop_task(self.current)

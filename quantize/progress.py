"""Progress: show how far a run is, one line for each type."""

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
from quantize.manifest import Made
from quantize.plan.variants import Variant


class ProgressWatch:
    """Draws what `run.make` tells; types wait below one another from the start."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}
        self.now = TaskID(-1)
        self.calibration: TaskID | None = None

    def calibrating(self, text: Path) -> None:
        """Show that a text is being read; llama-imatrix does not say how far it is."""
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

    def kept(self, made: Made) -> None:
        """Show a line as done by an earlier run."""
        self._finish(made, f"kept, {size(made.bytes)}")

    def begun(self, variant: Variant) -> None:
        """Start a line's clock."""
        self.now = self.tasks[variant.type.name]
        self.progress.start_task(self.now)

    def tensor(self, index: int, of: int, name: str) -> None:
        """Move a line on."""
        self.progress.update(self.now, completed=index - 1, total=of, now=name)

    def checking(self, variant: Variant) -> None:
        """Say that the file is written but not yet named."""
        done = len(variant.kinds)
        self.progress.update(self.now, completed=done, now="verifying")

    def made(self, made: Made) -> None:
        """Show a line as done."""
        self._finish(made, f"{size(made.bytes)}, {made.bits:.2f} bits per weight")

    def _finish(self, made: Made, words: str) -> None:
        task = self.tasks[made.recipe.type]
        self.progress.start_task(task)
        total = sum(made.tensors.values())
        self.progress.update(task, completed=total, total=total, now=words)
        self.progress.stop_task(task)


@contextmanager
def progress_bars() -> Generator[Progress]:
    """Draw bars on standard error for the length of the block."""
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


class ComparisonWatch:
    """Draws what `quality.compare` tells: a line per file."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.now = TaskID(-1)

    def scoring(self, file: Path) -> None:
        """Begin a file's line."""
        self.now = self.progress.add_task("scoring", total=None, now=file.name)

    def timing(self, file: Path) -> None:
        """Go on to speed, on the same line."""
        self.progress.update(self.now, description="timing", now=file.name)

    def step(self, done: int, of: int) -> None:
        """Move the line on."""
        self.progress.update(self.now, completed=done, total=of)

    def done(self, measured: Measured) -> None:
        """End the line with what was found."""
        value, error = measured.quality.perplexity
        self.progress.update(
            self.now,
            description="done",
            now=f"{measured.file}: perplexity {value:.3f} ± {error:.3f}",
        )
        self.progress.stop_task(self.now)

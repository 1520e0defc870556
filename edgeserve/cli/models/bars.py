"""Progress bars of what is fetched, on standard error."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from edgeserve.models.download import Show


@contextmanager
def progress() -> Generator[Show]:
    """Show progress bars on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TransferSpeedColumn,
    )

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(None), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = dict[str, TaskID]()

        def show(step: str, done: int, total: int) -> None:
            if not total:
                bars.console.print(step, markup=False, highlight=False)
                return
            if step not in tasks:
                tasks[step] = bars.add_task(step)
            bars.update(tasks[step], completed=done, total=total)

        yield show

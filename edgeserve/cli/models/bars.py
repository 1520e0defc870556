"""Progress bars of what is fetched, on standard error."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from edgeserve.models.download import Show

DONE, SPEED, LEAST_BAR = len("999.9/999.9 MB"), len("999.9 MB/s"), 8
"""Widths of the columns after a step; rich would break or cut them for a long one."""


@contextmanager
def progress() -> Generator[Show]:
    """Show progress bars on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        Task,
        TaskID,
        TextColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Speed(TransferSpeedColumn):
        """The speed; nothing for what was there already."""

        def render(self, task: Task) -> Text:
            """Return the text of a step."""
            known = task.finished_speed or task.speed
            return super().render(task) if known else Text("")

    text = TextColumn("{task.description}", markup=False)
    columns = (
        text,
        BarColumn(None),
        DownloadColumn(table_column=Column(no_wrap=True, width=DONE)),
        Speed(table_column=Column(no_wrap=True, width=SPEED)),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = dict[str, TaskID]()

        def show(step: str, done: int, total: int) -> None:
            if not total:
                bars.console.print(step, markup=False, highlight=False)
                return
            if step not in tasks:
                room = bars.console.width - DONE - SPEED - LEAST_BAR - len(columns)
                cut = step if len(step) <= room else f"{step[: room - 1]}…"
                tasks[step] = bars.add_task(cut)
            bars.update(tasks[step], completed=done, total=total)

        yield show

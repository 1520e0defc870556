"""Progress of a build or a conversion: a bar or a line for each step."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import click

from node.engine_build.source import Show

QUIET_SECONDS = 5.0
"""Least seconds between two lines of a log, within a step."""


@contextmanager
def shown_steps() -> Generator[Show]:
    """Draw one bar per step on standard error for the length of the block.

    A log gets lines instead: at each step's ends, and at tenths in between.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _in_lines()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = dict[str, TaskID]()

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step)
            bars.update(tasks[step], completed=done, total=total)

        yield show


def _in_lines() -> Show:
    """Return a function that writes progress line by line."""
    reached = dict[str, int]()
    written = time.monotonic()

    def show(step: str, done: int, total: int) -> None:
        nonlocal written
        tenths = 10 * done // max(total, 1)
        new = tenths > reached.get(step, -1)
        now = time.monotonic()
        if new and (tenths in (0, 10) or now - written >= QUIET_SECONDS):
            reached[step], written = tenths, now
            click.echo(f"{step} {10 * tenths} %", err=True)

    return show

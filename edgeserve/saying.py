"""What a process that serves tells the person at its terminal, or a log."""

from __future__ import annotations

from contextlib import suppress

import click


def say(line: str) -> None:
    """Write a line to standard output; a full disk or a closed pipe ends nothing."""
    with suppress(OSError):
        click.echo(line)

"""Log: logs a warning once, and writes lines for the person at the terminal."""

from __future__ import annotations

import logging
from contextlib import suppress

import click

MOST = 1000
"""Warnings remembered; past that, all may be logged again."""

_logged: set[tuple[str, str]] = set()


def warn_once(log: logging.Logger, sentence: str) -> None:
    """Log a warning, unless the same sentence has been logged there before."""
    if (log.name, sentence) in _logged:
        return
    if len(_logged) >= MOST:
        _logged.clear()
    _logged.add((log.name, sentence))
    log.warning("%s", sentence)


def say(line: str) -> None:
    """Write a line to standard output; a full disk or a closed pipe is ignored."""
    with suppress(OSError):
        click.echo(line)

"""Log: warnings that are logged once, and what a serving process tells a person."""

from __future__ import annotations

import logging
from contextlib import suppress

import click

MOST = 1000
"""Warnings remembered; past that, all may be said again."""

_said: set[tuple[str, str]] = set()


def warn_once(log: logging.Logger, sentence: str) -> None:
    """Log a warning, unless the same sentence has been logged there before."""
    if (log.name, sentence) in _said:
        return
    if len(_said) >= MOST:
        _said.clear()
    _said.add((log.name, sentence))
    log.warning("%s", sentence)


def say(line: str) -> None:
    """Write a line to standard output; a full disk or a closed pipe ends nothing."""
    with suppress(OSError):
        click.echo(line)

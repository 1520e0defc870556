"""Warnings that are logged once in a process, however often their cause is met."""

from __future__ import annotations

import logging

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

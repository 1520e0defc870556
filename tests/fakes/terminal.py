"""Run `edgeserve …` in this process, as a person at a terminal would see it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edgeserve.cli.main import main


@dataclass(frozen=True)
class Seen:
    """What a command left behind."""

    status: int
    out: str
    err: str


Terminal = Callable[..., Seen]


class Keyboard(io.StringIO):
    """Standard input at which someone sits."""

    def isatty(self) -> bool:
        """There is someone."""
        return True


def terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """Return `run(*arguments)`; it takes `typed=` from people, `piped=` from pipes."""

    def run(*arguments: str, piped: str = "", typed: str | None = None) -> Seen:
        source = io.StringIO(piped) if typed is None else Keyboard(typed)
        monkeypatch.setattr(sys, "stdin", source)
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capsys.readouterr()
        code = left.value.code
        return Seen(code if isinstance(code, int) else 0, out, err)

    return run

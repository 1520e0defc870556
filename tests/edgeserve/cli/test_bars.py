"""Progress bars of a pull, in a pipe."""

from __future__ import annotations

import pytest

from edgeserve.cli.models.bars import progress

STEP = "SmolLM2-135M-Instruct-Q4_1-of-a-repository.gguf: checking what is here"


def test_in_a_pipe_a_step_is_one_line_of_80_columns_without_an_unknown_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with progress() as show:
        show("a.gguf: checking", 98_000_000, 98_000_000)
        show(STEP, 98_000_000, 98_000_000)

    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    shown = [line for line in lines if line]
    assert sum("98.0/98.0 MB" in line for line in shown) == 2
    assert not any(line.strip() in {"MB", "MB/s", "?"} for line in shown)
    assert not any(line.endswith("?") for line in shown)

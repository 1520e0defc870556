from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.runtime.log import say


def test_a_full_disk_behind_standard_output_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        say("listening")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()

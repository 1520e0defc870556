from pathlib import Path

import pytest

from tests.fakes.terminal import Terminal, terminal


@pytest.fixture
def edgeserve(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Terminal:
    """The command, with folders of its own."""
    for folder in ("config", "state", "models"):
        monkeypatch.setenv(f"EDGESERVE_{folder.upper()}_DIR", str(tmp_path / folder))
    return terminal(capsys, monkeypatch)

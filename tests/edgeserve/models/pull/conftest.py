"""A hub on loopback, with one repository."""

from collections.abc import Generator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from tests.edgeserve.models.pull.repository import FILE, MODEL, OTHER, REPO
from tests.fakes.hub import Hub, a_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """The hub that huggingface_hub asks, with one repository."""
    with a_hub() as hub:
        hub.repos[REPO] = {"README.md": b"#", FILE: MODEL, "tiny-Q8_0.gguf": OTHER}
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub
        close_session()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which take no time."""
    waits = list[float]()
    monkeypatch.setattr("edgeserve.models.pull.transfer.time.sleep", waits.append)
    return waits


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"

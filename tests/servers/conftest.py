"""One server of each program for all tests of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.programs import MODEL, SERVERS, Weights
from tests.servers.weights import write_folder


@pytest.fixture(scope="session")
def weights(smollm2: Path) -> Weights:
    """The small model in both forms."""
    assert SERVERS, "mark the test with `needs`"
    return Weights(smollm2, write_folder(smollm2, Path(SERVERS) / "models" / MODEL))

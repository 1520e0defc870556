from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.edgeserve.cli.service.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """A home without services; what runs there ends with the test."""
    # Not above: conftests are imported before the folders of the tests are set.
    from tests.edgeserve.cli.service.home import a_home, living

    with living(a_home(tmp_path / "home")) as made:
        yield made

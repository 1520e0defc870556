"""A file of keys, and what admits the clients that have one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from balancer.clients.admission import admitting
from balancer.clients.store import (
    store_in,
)
from edgeserve.config.settings import BalancerSettings
from tests.balancer.clients.keys import Admit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store_in(tmp_path / "state")


@pytest.fixture
def admit(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Admit]:
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            admitting(BalancerSettings(state_dir=path.parent, **settings))
        )

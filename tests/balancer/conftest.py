"""What the balancer's tests have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def little_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake engines that fail stay as they are: let nobody wait for another."""
    monkeypatch.setattr("balancer.failover.recovery.LOST_SECONDS", 0.1)

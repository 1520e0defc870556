"""What the balancer's tests have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake engines that fail stay as they are: no request waits for a restart."""
    monkeypatch.setattr("balancer.failover.recovery.LOST_SECONDS", 0.1)

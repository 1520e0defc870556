"""Marks for the tests that run pages; those need namespaces and real engines."""

from __future__ import annotations

import pytest

from tests.fleet.network import impossible

WHY_NOT = impossible()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what runs a page where networks cannot be made."""
    for item in items:
        if item.path.name == "test_pages.py" and WHY_NOT:
            item.add_marker(pytest.mark.skip(reason=WHY_NOT))

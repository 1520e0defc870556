"""What every test may rely on: a home of its own, and the small real model."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no counterexample.
settings.register_profile(
    "unhurried",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")

LONG = ("engine", "fleet")
"""Marks of the files that take longest: real engines, real networks."""

HOME = tempfile.mkdtemp(prefix="edgeserve-tests-")
FOLDERS = ("CONFIG_DIR", "STATE_DIR")


def hide_settings() -> None:
    """Hide the settings of the user who runs the tests.

    The models folder stays theirs, so that a model is fetched once.
    """
    for name in [name for name in os.environ if name.startswith("EDGESERVE_")]:
        if name != "EDGESERVE_MODELS_DIR":
            del os.environ[name]
    for folder in FOLDERS:
        os.environ[f"EDGESERVE_{folder}"] = f"{HOME}/{folder.lower()}"


# Now, not in a hook: other conftest files import edgeserve, which reads them.
hide_settings()
# What a shell runs in the background ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that none is begun last."""
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG))}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as Q4_1, fetched into the models folder if need be."""
    from edgeserve.config.paths import models_dir
    from edgeserve.models.download import DEFAULT, fetch

    return fetch(DEFAULT, models_dir(), lambda _step, _done, _total: None)

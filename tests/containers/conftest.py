"""Containers by podman; skipped where `make check-containers` has made no image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.containers.podman import KEY, Pod
from tests.fleet.fleet import TOKEN

IMAGE = os.environ.get("CONTAINERS_IMAGE", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip every test of this folder without an image."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(600))
            if not IMAGE:
                why = "needs an image; run `make check-containers`"
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a token and a key, for the group of the images."""
    folder = tmp_path_factory.mktemp("secrets")
    for name, text in (("token", TOKEN), ("api-keys", KEY)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o440)
    for each in (folder, *folder.parents[:3]):
        each.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small real model, which any user reads."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(os.environ["CONTAINERS_MODEL"], folder)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def pod(secrets: Path, models: Path) -> Generator[Pod]:
    """A network for containers; they and it are gone afterwards."""
    with Pod.made(IMAGE, secrets, models) as made:
        yield made

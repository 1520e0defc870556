"""Every page of docs/ does what it says, on machines of its own with real engines."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.docs.machines import PageFails, machines
from tests.docs.page import steps

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ("home-assistant",)
REFERENCE = (
    "api",
    "containers",
    "doctor",
    "energy",
    "kubernetes",
    "large-models",
    "many-machines",
    "models",
    "platforms",
    "several-balancers",
)
"""Pages to look things up: no steps. tests/test_readme.py holds their commands."""

ALL = os.environ.get("DOCS")
PAGES = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in REFERENCE)

pytestmark = [pytest.mark.engine, pytest.mark.fleet, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, smollm2: Path) -> None:
    if name not in QUICK and not ALL:
        pytest.skip("takes a minute: make check-docs")
    told = steps((DOCS / f"{name}.md").read_text())

    # Paths of sockets are short.
    with (
        tempfile.TemporaryDirectory(prefix="docs-") as folder,
        machines(told, Path(folder), smollm2) as made,
    ):
        made.follow(told)


@pytest.mark.parametrize(
    "wrong",
    [
        "```sh\nedgeserve token new --fiel token\n```\n",
        "```sh\nedgeserve token new\n```\n\n```text\nholds a key\n```\n",
    ],
    ids=["a command that fails", "another output"],
)
def test_a_page_that_is_wrong_fails(wrong: str, tmp_path: Path, smollm2: Path) -> None:
    told = steps(f"On `nuc`:\n\n{wrong}")

    with (
        machines(told, tmp_path, smollm2) as made,
        pytest.raises(PageFails, match="edgeserve token new"),
    ):
        made.follow(told)

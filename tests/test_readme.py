"""What the documentation shows exists, and its first lines are run by .ci/run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from edgeserve.cli.main import BY_HEADING
from edgeserve.cli.up.welcome import Welcome
from edgeserve.openai import ROUTES
from tests.fakes.commands import problems

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "deploy" / "README.md",
    ROOT / "deploy" / "ray" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

pages = pytest.mark.parametrize(
    "page", PAGES, ids=lambda path: str(path.relative_to(ROOT))
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shown_lines(text: str) -> list[str]:
    """Return what a page shows as code: lines of its shell blocks, and in sentences."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        *lines,
        *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)),
    ]


def shown_commands(text: str) -> list[str]:
    """Return every `edgeserve …` of a page."""
    found = [re.sub(r"^\S*/bin/", "", line) for line in shown_lines(text)]
    return [line for line in found if re.match(r"edgeserve \w", line)]


@pages
def test_every_command_that_is_shown_exists_with_its_flags(page: Path) -> None:
    shown = shown_commands(page.read_text())

    assert [problem for line in shown for problem in problems(line)] == []


def test_the_check_would_notice() -> None:
    assert problems("edgeserve node start --slot 3")
    assert problems("edgeserve serve")
    assert shown_commands("see `.venv/bin/edgeserve chat`") == ["edgeserve chat"]
    block = "- in a list\n\n  ```toml\n  slots = 4\n  ```\n"
    assert shown_commands(f"{block}\nsee `edgeserve chat`") == ["edgeserve chat"]


def test_the_first_two_commands_need_no_compiler_and_ci_runs_them_all() -> None:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    makes = [line for line in lines if line.startswith("make ")]
    compiling = ["make check-quantize", "make check-native"]

    assert makes == ["make up", "make check", "make check-llama", *compiling]
    assert lines[0] == "make up"
    assert (
        "checks=(check check-llama check-quantize check-native)"
        in (ROOT / ".ci" / "run").read_text().splitlines()
    )


def test_every_make_target_that_is_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    shown = {
        name
        for page in (*PAGES, ROOT / "MEASURED.md", ROOT / "CHANGELOG.md")
        for line in shown_lines(page.read_text())
        for name in re.findall(r"(?:^| )make ([\w-]+)", line)
    }

    assert shown >= {"up", "check", "help", "check-dashboard"}
    assert shown <= targets


def test_the_curl_line_is_the_one_that_up_prints() -> None:
    (line,) = (block for block in blocks(README, "sh") if block.startswith("curl"))
    body = json.loads(shlex.split(line)[-1])
    model = {"id": body["model"], "abilities": ["chat"]}

    welcome = Welcome(url="http://127.0.0.1:8080", models=[model], command="edgeserve")

    assert line.strip() == welcome.curl()


def test_the_python_block_compiles() -> None:
    (block,) = blocks(README, "python")

    compile(block, "README.md", "exec")


def test_the_table_has_every_command_in_the_order_of_help() -> None:
    rows = re.findall(
        r"^\| (?:\*\*(.+)\*\*|`edgeserve (\w+)[^`]*`) \|", README, re.MULTILINE
    )

    assert list(dict.fromkeys(heading or name for heading, name in rows)) == [
        each for heading, names in BY_HEADING.items() for each in (heading, *names)
    ]


def test_every_route_is_named() -> None:
    named = set(re.findall(r"`(/[^`]*)`", (ROOT / "docs" / "api.md").read_text()))

    assert {route.path for route in ROUTES.values()} <= named


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_page_installs_the_other_project_of_that_name() -> None:
    for page in PAGES:
        assert "pip install edgeserve" not in page.read_text()

"""The dashboard's files: what they weigh, what they may do, who gets them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from balancer.dashboard.files import FOLDER, KINDS, contents
from tests.balancer.endpoint import a_secret, endpoint

LIMIT = 300_000
"""Bytes of the whole page with all that it loads."""

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OURS = sorted(FOLDER.glob("*.js")) + sorted(FOLDER.glob("views/*.js"))


async def test_a_browser_gets_the_page_and_a_program_what_ollama_says() -> None:
    async with endpoint() as balancer:
        page = await balancer.get("/", BROWSER)
        program = await balancer.get("/", {"accept": "*/*"})

    assert page.body == contents()["index.html"]
    assert page.headers["vary"] == "accept"
    assert program.body == b"Ollama is running"


async def test_the_page_needs_no_key_and_what_it_shows_does(tmp_path: Path) -> None:
    keys = a_secret(tmp_path, "keys", "sk-" + "k" * 40)
    async with endpoint(api_key_file=keys) as balancer:
        page = await balancer.get("/", BROWSER)
        program = await balancer.get("/")
        shown = [
            (await balancer.get(f"/edgeserve/v1/{each}")).status
            for each in ("live", "nodes", "keys", "usage")
        ]

    assert (page.status, program.status, shown) == (200, 401, [401] * 4)


async def test_the_page_may_load_only_from_its_balancer_and_sit_in_no_frame() -> None:
    async with endpoint() as balancer:
        for path in ("/", "/dashboard/app.js"):
            headers = (await balancer.get(path, BROWSER)).headers
            rules = dict(
                each.strip().split(" ", 1)
                for each in headers["content-security-policy"].split(";")
            )
            assert rules.pop("default-src") == rules.pop("base-uri") == "'none'"
            assert rules.pop("frame-ancestors") == rules.pop("form-action") == "'none'"
            assert rules.pop("require-trusted-types-for") == "'script'"
            assert set(rules.values()) == {"'self'"}
            assert headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_a_browser_has_is_not_sent_again() -> None:
    async with endpoint() as balancer:
        first = await balancer.get("/dashboard/style.css")
        again = await balancer.get(
            "/dashboard/style.css", {"if-none-match": first.headers["etag"]}
        )
        changed = await balancer.get("/dashboard/style.css", {"if-none-match": '"x"'})

    assert first.headers["content-type"] == "text/css; charset=utf-8"
    assert (again.status, again.body, changed.status) == (304, b"", 200)


@pytest.mark.parametrize(
    "name", ["nothing.js", "../files.py", "%2e%2e/files.py", "views/../../files.py"]
)
async def test_no_other_file_is_sent(name: str) -> None:
    async with endpoint() as balancer:
        answer = await balancer.get(f"/dashboard/{name}")

    assert answer.status == 404


async def test_a_page_of_another_name_does_not_get_the_dashboard() -> None:
    async with endpoint() as balancer:
        answer = await balancer.get("/", BROWSER | {"host": "evil.example"})

    assert answer.status == 421


def test_the_whole_page_is_light() -> None:
    assert sum(map(len, contents().values())) < LIMIT


def test_nothing_in_the_page_names_another_server() -> None:
    for name, content in contents().items():
        if name.startswith("vendor/"):
            continue
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", content.decode()))
        assert found <= {"http://www.w3.org"}, name  # the name of SVG, not an address


def test_text_never_becomes_markup() -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|srcdoc"
    for path in [*OURS, FOLDER / "vendor/uplot.js"]:
        assert not re.findall(sinks, path.read_text()), path


def test_the_page_has_no_script_or_style_inside() -> None:
    page = (FOLDER / "index.html").read_text()

    assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", page)


def test_a_wheel_has_every_file() -> None:
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["balancer.dashboard"]
    packed = {each for glob in globs for each in FOLDER.parent.glob(glob)}

    assert {each for each in FOLDER.rglob("*") if each.is_file()} == packed
    assert {each.suffix for each in packed} <= KINDS.keys()


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to parse modules")
def test_every_module_parses(tmp_path: Path) -> None:
    for path in OURS:
        module = tmp_path / f"{path.stem}.mjs"
        module.write_text(path.read_text())
        subprocess.run(["node", "--check", module], check=True, timeout=60)


def test_every_module_stays_short() -> None:
    assert [
        each.name for each in OURS if len(each.read_text().splitlines()) > 320
    ] == []

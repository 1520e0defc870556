"""The rules of the house that no other tool holds."""

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeserve import __version__
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("edgeserve", "node", "balancer", "quantize")
LONGEST_FILE, LONGEST_FUNCTION = 350, 65
"""Walls; the aims are 300 and 30."""


def sources() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            yield item


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines after the docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def test_every_package_is_installed() -> None:
    folders = {str(path.parent.relative_to(ROOT)) for path in sources()}

    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert {folder.replace("/", ".") for folder in folders} == set(listed)


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}

    assert {str(p): n for p, n in lengths.items() if n > LONGEST_FILE} == {}


def test_functions_stay_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in sources()
        for function in functions(path)
        if body_lines(function) > LONGEST_FUNCTION
    ]

    assert long == []


def test_every_file_says_what_it_is() -> None:
    silent = [
        path for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []


def logged(path: Path) -> Iterator[str]:
    for call in ast.walk(ast.parse(path.read_text())):
        match call:
            case ast.Call(
                ast.Attribute(ast.Name("log")), [ast.Constant(str(said)), *_]
            ):
                yield said
            case _:
                pass


def test_the_log_speaks_in_one_style() -> None:
    said = [each for path in sources() for each in logged(path)]

    assert len(said) > 20
    assert [each for each in said if each[0].isupper() or each.endswith(".")] == []


def test_code_and_project_agree_on_the_version() -> None:
    assert PROJECT["project"]["version"] == __version__


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize(
    "script", sorted((ROOT / "scripts").iterdir()), ids=lambda p: p.name
)
def test_scripts_are_plain_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=PATIENCE)


def test_base_dependencies_leave_the_compiler_alone() -> None:
    base = " ".join(PROJECT["project"]["dependencies"])

    assert "llama-cpp-python" not in base
    assert "sys_platform" in base[base.index("xllamacpp") :]

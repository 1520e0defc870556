"""The rules of the house that no other tool holds."""

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeserve import __version__
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("edgeserve", "node", "balancer", "quantize")
LONGEST_FILE, LONGEST_FUNCTION, MOST_FILES = 320, 65, 12
"""Walls; the aims are 300 lines a file and 30 a function. MOST_FILES is for a
folder, besides its `__init__`."""


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


def test_folders_stay_small() -> None:
    counts = Counter(path.parent for path in sources() if path.name != "__init__.py")

    assert {str(p): n for p, n in counts.items() if n > MOST_FILES} == {}


def test_no_public_class_name_means_two_things_in_one_package() -> None:
    homes: dict[tuple[str, str], list[str]] = {}
    for path in sources():
        place = path.relative_to(ROOT)
        for item in ast.parse(path.read_text()).body:
            if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
                homes.setdefault((place.parts[0], item.name), []).append(str(place))

    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_every_folder_says_its_purpose() -> None:
    folders = {path.parent for path in sources()}

    lines = {
        folder: ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        for folder in folders
    }
    assert {str(f): line for f, line in lines.items() if len(line or "") < 20} == {}


PERSONS = re.compile(
    r"\b(he|she|him|his|her|himself|herself|whom|whoever|nobody|somebody|anybody"
    r"|everybody|someone)\b",
    re.IGNORECASE,
)
"""Words for persons. Machines, engines, requests and processes are things."""


def prose(path: Path) -> Iterator[str]:
    """Yield every comment and string of a file, docstrings included."""
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            yield item.value


def test_machines_and_processes_are_things_in_prose() -> None:
    found = {
        str(path.parent.relative_to(ROOT))
        for path in sources()
        if any(PERSONS.search(text) for text in prose(path))
    }

    assert found == set(), "write `it`, or name the thing"


def mapped() -> list[str]:
    """Return all paths in the map at the top of CONTRIBUTING.

    In its tree, paths come first and two blanks separate them from their descriptions;
    an indented line belongs to the package above it.
    """
    text = (ROOT / "CONTRIBUTING.md").read_text().split("Where things live")[1]
    found: list[str] = []
    package = ""
    for line in re.findall(
        r"^    (.*)$", text.split("    make check")[0], re.MULTILINE
    ):
        first, *told = re.split(r" {2,}", line.strip())
        paths = re.findall(r"[\w/]+(?:\.py|/)(?=[\s,;]|$)", first)
        if told and not line.startswith(" "):
            package = paths[0]
        found += [package + path if line.startswith(" ") else path for path in paths]
    return found


def test_the_map_of_contributing_is_true() -> None:
    paths = mapped()
    folders = {str(path.parent.relative_to(ROOT)) + "/" for path in sources()}

    assert [path for path in paths if not (ROOT / path).exists()] == []
    deep = {folder for folder in folders if folder.count("/") == 2}
    assert deep - set(paths) == set()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "MEASURED.md", "README.md"])
def test_paths_in_documents_exist(page: str) -> None:
    spans = re.findall(r"`([^`\s]+)`", (ROOT / page).read_text())
    made = "build"  # by checks; not kept
    tops = {each.name for each in ROOT.iterdir() if each.is_dir()} - {made}
    paths = [span for span in spans if span.split("/")[0] in tops and "/" in span]

    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_modules_named_in_documents_exist() -> None:
    pages = [ROOT / page for page in ("CONTRIBUTING.md", "MEASURED.md", "README.md")]
    text = "".join(page.read_text() for page in pages)

    modules = re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)+)", text)
    files = [ROOT / f"{module.replace('.', '/')}.py" for module in modules]
    assert files
    assert [str(path) for path in files if not path.exists()] == []


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


RENAMERS = {"edgeserve/runtime/files.py", "node/engine_build/build.py"}
"""The one writer of files, and a build that gives a whole folder its place."""


def renames(path: Path) -> bool:
    """Whether files are renamed there. Of strings, `replace` takes two arguments."""
    return any(
        isinstance(item, ast.Call)
        and isinstance(item.func, ast.Attribute)
        and (
            (item.func.attr == "replace" and len(item.args) + len(item.keywords) == 1)
            or ast.unparse(item.func) in {"os.replace", "os.rename"}
            or item.func.attr == "rename"
        )
        and not ast.unparse(item.func).startswith("msgspec.")
        for item in ast.walk(ast.parse(path.read_text()))
    )


def test_files_are_replaced_by_one_writer() -> None:
    found = {str(path.relative_to(ROOT)) for path in sources() if renames(path)}

    assert found == RENAMERS

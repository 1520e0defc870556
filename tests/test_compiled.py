"""What modules that mypyc compiles must keep to; CONTRIBUTING.md says why."""

import ast
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeserve import cli, compiled

ROOT = Path(__file__).parents[1]


def modules() -> list[Path]:
    for item in ast.parse((ROOT / "setup.py").read_text()).body:
        match item:
            case ast.Assign([ast.Name("COMPILED")], value):
                return [
                    ROOT / at / f"{name}.py"
                    for at, names in ast.literal_eval(value).items()
                    for name in names.split()
                ]
            case _:
                pass
    raise AssertionError("setup.py names no modules")


MODULES = modules()


def handlers(function: ast.AST) -> Iterator[str]:
    for item in ast.walk(function):
        if isinstance(item, ast.ExceptHandler) and item.name:
            yield item.name


def test_handlers_of_one_function_name_what_they_catch_differently() -> None:
    alike = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in MODULES
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(set(found := list(handlers(function)))) < len(found)
    ]

    assert len(MODULES) > 20
    assert alike == []


def test_nothing_awaits_while_an_exception_is_under_way() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{item.lineno}"
        for path in MODULES
        for block in ast.walk(ast.parse(path.read_text()))
        if isinstance(block, ast.Try)
        for each in (*block.handlers, *block.finalbody)
        for item in ast.walk(each)
        if isinstance(item, ast.Await | ast.AsyncWith | ast.AsyncFor)
    ]

    assert found == []


def test_structs_lie_elsewhere() -> None:
    structs = [
        f"{path.relative_to(ROOT)}:{item.lineno} {item.name}"
        for path in MODULES
        for item in ast.walk(ast.parse(path.read_text()))
        if isinstance(item, ast.ClassDef)
        and (item.keywords or "Struct" in " ".join(map(ast.unparse, item.bases)))
    ]

    assert structs == []


def test_nobody_else_inherits_from_what_is_compiled() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES}
    heirs = []
    for path in {*ROOT.glob("balancer/**/*.py"), *ROOT.glob("edgeserve/**/*.py")}:
        tree = list(ast.walk(ast.parse(path.read_text())))
        native = {
            alias.asname or alias.name
            for item in tree
            if isinstance(item, ast.ImportFrom) and item.module in names
            for alias in item.names
        }
        heirs += [
            f"{path.relative_to(ROOT)}:{item.lineno} {item.name}"
            for item in tree
            if isinstance(item, ast.ClassDef) and path not in MODULES
            if native & set(map(ast.unparse, item.bases))
        ]

    assert heirs == []


def test_no_asynchronous_generator_is_compiled() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in MODULES
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef)
        and any(isinstance(item, ast.Yield) for item in ast.walk(function))
    ]

    assert found == []


def test_the_version_says_whether_it_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    (tmp_path / "relay").mkdir()
    assert not compiled.compiled()

    (tmp_path / "relay" / f"reply{EXTENSION_SUFFIXES[0]}").touch()

    assert compiled.compiled()
    said = CliRunner().invoke(cli.edgeserve, ["--version"]).output
    assert said.startswith("edgeserve, version ")

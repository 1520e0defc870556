"""Settings as command-line options: one option per field, its help beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from edgeserve.config import SharedSettings, flag_name, in_order

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(shape: type[SharedSettings]) -> Callable[[F], F]:
    """Add `--config` and an option for every field of `shape`.

    Options that are not given stay None (or empty), so that file and environment count.
    """

    def decorate(command: F) -> F:
        for each in reversed(in_order(shape)):
            command = _option(shape, each)(command)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="TOML settings file.",
        )(command)

    return decorate


def _option(
    shape: type[SharedSettings], each: dataclasses.Field[Any]
) -> Callable[[F], F]:
    hint = get_type_hints(shape)[each.name]
    flag = flag_name(shape, each.name)
    text = each.metadata["help"]
    if each.default not in (None, (), ""):
        text = f"{text}  [default: {_shown(each.default)}]"
    if hint is bool:
        both = f"{flag}/--no-{flag[2:]}" if each.default else flag
        return click.option(both, each.name, default=None, help=text, is_flag=True)
    many = hint == tuple[str, ...]
    return click.option(
        flag, each.name, multiple=many, metavar=_metavar(each.name, hint), help=text
    )


def _metavar(name: str, hint: Any) -> str:
    """Name what to write behind a flag; `resolve` checks it, wherever it came from."""
    if name.endswith("_seconds"):
        return "SECONDS"
    if hint in {Path, Path | None}:
        return "PATH"
    return "NUMBER" if hint in {int, float} else "TEXT"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)

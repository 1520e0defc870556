"""Settings as command-line options: one option per field, its help beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from edgeserve.config import SharedSettings, flag_name
from edgeserve.headings import COMMON, heading_of, in_order
from edgeserve.help import SettingOption

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(
    shape: type[SharedSettings], *, aside: Collection[str] = ()
) -> Callable[[F], F]:
    """Add `--config` and an option for every field of `shape`.

    Options that are not given stay None (or empty), so that file and environment count.
    `aside` are headings that mean little to this command: `--help-all` has them.
    """

    def decorate(command: F) -> F:
        fields = {each.name: each for each in dataclasses.fields(shape)}
        for name in reversed(in_order(["config_file", *fields])):
            if name in fields:
                command = _option(shape, fields[name], _shown_where(name, aside))(
                    command
                )
            else:
                command = _config_option(command)
        return command

    return decorate


def _config_option(command: F) -> F:
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="TOML settings file.",
        **_shown_where("config_file", ()),
    )(command)


def _option(
    shape: type[SharedSettings], each: dataclasses.Field[Any], where: dict[str, Any]
) -> Callable[[F], F]:
    hint = get_type_hints(shape)[each.name]
    flag = flag_name(shape, each.name)
    text = each.metadata["help"]
    if each.default not in (None, (), ""):
        text = f"{text}  [default: {_shown(each.default)}]"
    if hint is bool:
        both = f"{flag}/--no-{flag[2:]}" if each.default else flag
        return click.option(
            both, each.name, default=None, help=text, is_flag=True, **where
        )
    many = hint == tuple[str, ...]
    metavar = _metavar(each.name, hint)
    return click.option(
        flag, each.name, multiple=many, metavar=metavar, help=text, **where
    )


def _shown_where(name: str, aside: Collection[str]) -> dict[str, Any]:
    heading = heading_of(name)
    rare = name not in COMMON or heading in aside
    return {"cls": SettingOption, "heading": heading, "rare": rare}


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
    if isinstance(value, Path) and value.is_relative_to(Path.home()):
        return f"~/{value.relative_to(Path.home())}"
    return f"{value:g}" if isinstance(value, float) else str(value)

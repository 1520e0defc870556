"""Read one section of the TOML settings file; say what is wrong with it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeserve.errors import SettingsError, in_words
from edgeserve.files import read_text

SECTIONS = ("node", "balancer")
MOST_BYTES = 2**20

Layer = tuple[str, dict[str, Any]]
"""Where some values come from, and the values."""


def file_layers(
    path: Path, section: str, *, shared: Collection[str], own: Collection[str]
) -> list[Layer]:
    """Return what the file says to every section, then what it says to this one.

    `shared` and `own` are the keys that may stand at the top and in the section.
    Raises SettingsError where the file cannot be read or has a key that nobody knows.
    """
    table = _table(path)
    top = {key: value for key, value in table.items() if key not in SECTIONS}
    section_table = table.get(section, {})
    if not isinstance(section_table, dict):
        raise SettingsError(f"{path}: `{section}` must be a table, [{section}]")
    _refuse_unknown(path, top, shared)
    _refuse_unknown(f"{path} [{section}]", section_table, own)
    return [(f"{path}", top), (f"{path} [{section}]", section_table)]


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, MOST_BYTES))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {in_words(error)}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error


def _refuse_unknown(
    where: object, table: Mapping[str, Any], known: Collection[str]
) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(f"{where}: unknown key `{key}`; {_hint(key, known)}")


def _hint(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return (
        f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
    )

"""Setting sources: merges defaults, settings file, environment and command line.

Kubernetes and docker put the addresses of services into the environment of containers:
a service named `edgeserve-node` gives `EDGESERVE_NODE_PORT=tcp://…`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from edgeserve.config.limits import GrammarSettings, LimitSettings, names_of
from edgeserve.config.paths import config_dir, models_dir, moved_by, state_dir
from edgeserve.config.routes import WrongRoute, collision, route_from
from edgeserve.config.servers import WrongServer, server_collision, server_from
from edgeserve.config.settings import SharedSettings
from edgeserve.config.values import WrongValue, converted
from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import read_text

SECTIONS = ("node", "balancer")
TABLES = {"route": "routes", "server": "server_tables", "adopt": "adopt_tables"}
"""Tables of the file, and the setting of each."""

_READ: dict[str, tuple[Callable[..., Any], Callable[..., str]]] = {
    "route": (route_from, collision),
    "server": (server_from, server_collision),
    "adopt": (server_from, server_collision),
}
MOST_BYTES = 2**20

Layer = tuple[str, dict[str, Any]]
"""Where some values come from, and the values."""


def file_layers(path: Path, shape: type[SharedSettings]) -> list[Layer]:
    """Return the file's top-level keys, then those of the section.

    Raises SettingsError where the file cannot be read or has an unknown key.
    """
    table, section = _table(path), shape.SECTION
    lists = {key: table.pop(key) for key in TABLES if key in table}
    top = {key: value for key, value in table.items() if key not in SECTIONS}
    section_table = table.get(section, {})
    if not isinstance(section_table, dict):
        raise SettingsError(f"{path}: `{section}` must be a table, [{section}]")
    _refuse_unknown(path, top, (*names_of(SharedSettings), *TABLES))
    _refuse_unknown(f"{path} [{section}]", section_table, names_of(shape))
    fields = shape.__dataclass_fields__
    lists = {key: each for key, each in lists.items() if TABLES[key] in fields}
    return [
        (f"{path}", top),
        (f"{path} [{section}]", section_table),
        *(
            (f"{path}", {TABLES[key]: _tables(path, key, each)})
            for key, each in lists.items()
        ),
    ]


def _tables(path: Path, key: str, found: Any) -> tuple[Any, ...]:
    if not isinstance(found, list):
        raise SettingsError(f"{path}: `{key}` must be tables, [[{key}]]")
    (read, excluding), values = _READ[key], list[Any]()
    for number, table in enumerate(found, 1):
        name = table.get("name", number) if isinstance(table, dict) else number
        try:
            values.append(read(table if isinstance(table, dict) else {}))
        except (WrongRoute, WrongServer) as error:
            raise SettingsError(f"{path} [[{key}]] {name}: {error}") from error
    if problem := excluding(values):
        raise SettingsError(f"{path} [[{key}]]: {problem}")
    return tuple(values)


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
    if near:
        return f"did you mean `{near[0]}`?"
    return f"known: {', '.join(sorted(known))}"


PREFIX = "EDGESERVE_"

_SECTION = re.compile(rf"^(?:{'|'.join(SECTIONS).upper()})_")

_PROTOCOL = "(?:tcp|udp|sctp)"

_OF_A_SERVICE = re.compile(
    rf"_SERVICE_HOST=|_SERVICE_PORT(_\w+)?=|_PORT={_PROTOCOL}://"
    rf"|_PORT_\d+_{_PROTOCOL}(_PROTO|_PORT|_ADDR)?=|_NAME=/.*/|_ENV_\w+=",
    re.IGNORECASE,
)


def variables(shape: type[SharedSettings]) -> dict[str, str]:
    """Return variable → setting; the later wins."""
    # Not EDGESERVE_PORT: it would give node and balancer the same port.
    shared, section = sorted(names_of(SharedSettings)), shape.SECTION.upper()
    to_both = {f"{PREFIX}{name.upper()}": name for name in shared}
    return to_both | {
        f"{PREFIX}{section}_{name.upper()}": name for name in sorted(names_of(shape))
    }


def of_a_service(variable: str, value: str) -> bool:
    """Whether the variable is the address of a service, from Kubernetes or docker."""
    return _OF_A_SERVICE.search(f"{variable}={value}") is not None


def unknown_variables(
    environ: Mapping[str, str], known: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield unknown variables that begin with `PREFIX`, each with similar known ones.

    `known` are the variables of all commands.
    """
    for variable, value in sorted(environ.items()):
        ours = variable.startswith(PREFIX) and variable not in known
        if ours and not of_a_service(variable, value):
            yield variable, _meant(variable, known)


def _meant(variable: str, known: Collection[str]) -> list[str]:
    """Return the most similar known ones, of the same section where it has one."""
    settings = sorted({_setting(each) for each in known})
    near = difflib.get_close_matches(_setting(variable), settings, n=1)
    alike = sorted(each for each in known if _setting(each) in near)
    section = variable.removesuffix(_setting(variable))
    return [each for each in alike if each.removesuffix(*near) == section] or alike


def _setting(variable: str) -> str:
    return _SECTION.sub("", variable.removeprefix(PREFIX))


DEFAULT = "default"
"""The origin of a value that is not set."""

S = TypeVar("S", bound=SharedSettings)


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """Settings, and for each field the place its value came from."""

    settings: S
    origins: Mapping[str, str]


def resolve(
    shape: type[S],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Resolved[S]:
    """Merge default, file, environment and flags; the later wins.

    Raises SettingsError with the name, the value and its origin.
    """
    hints = get_type_hints(shape)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in _layers(shape, file, environ, flags or {}):
        for name, raw in layer.items():
            label = f"{shape.SECTION}.{name}"
            hint = hints[name]
            # Tables have their types already.
            values[name] = (
                raw if name in TABLES.values() else converted(label, origin, raw, hint)
            )
            origins[name] = origin
    names = (each.name for each in dataclasses.fields(shape))
    origins = dict.fromkeys(names, DEFAULT) | origins
    try:
        return Resolved(shape(**values), origins)
    except WrongValue as error:
        raise SettingsError(f"{error} (from {origins[error.field]})") from error


def _layers(
    shape: type[SharedSettings],
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
) -> list[Layer]:
    names = set(names_of(shape))
    layers = [layer for layer in _places() if layer[1].keys() <= names]
    path = file or default_file()
    if file or os.path.lexists(path):
        layers += file_layers(path, shape)
    layers += [
        (f"environment {variable}", {name: environ[variable]})
        for variable, name in variables(shape).items()
        if variable in environ and not of_a_service(variable, environ[variable])
    ]
    for name, value in flags.items():
        if value is not None and value != ():
            layers.append((flag_name(shape, name), {name: value}))
    return layers


def _places() -> list[Layer]:
    """Return the default folders that environment variables have moved."""
    folders = {"state_dir": state_dir(), "models_dir": models_dir()}
    return [
        (f"environment {variable}", {name: folder})
        for name, folder in folders.items()
        if (variable := moved_by(folder))
    ]


def default_file() -> Path:
    """Return the path of the settings file where none is named."""
    return config_dir() / "edgeserve.toml"


def in_order(shape: type[SharedSettings]) -> list[dataclasses.Field[Any]]:
    """Return the fields in the order of display: limits, then tables come last."""
    limits = names_of(LimitSettings, GrammarSettings)
    return sorted(
        dataclasses.fields(shape),
        key=lambda each: ("table" in each.metadata, each.name in limits),
    )


def flag_name(shape: type[SharedSettings], name: str) -> str:
    """Return the flag of a field: `--model` for `models`, else its own name."""
    flag: str | None = shape.__dataclass_fields__[name].metadata["flag"]
    return flag or "--" + name.replace("_", "-")

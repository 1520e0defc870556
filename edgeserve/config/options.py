"""Command-line options: makes one for each setting, with help and default."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from edgeserve.config.limits import names_of
from edgeserve.config.settings import BalancerSettings, NodeSettings, SharedSettings
from edgeserve.config.sources import flag_name, unknown_variables, variables
from edgeserve.help import HeadedOption

HEADINGS = {
    "Models": (
        "models", "embedding_models", "rerank_models", "models_dir", "min_speed",
        "min_quality", "on_demand", "keep_alive",
    ),
    "Engine": (
        "slots", "context", "threads", "gpu_layers", "engine", "llama_server", "batch",
        "cache_ram_mib", "cache_disk_mib", "memory_mib", "load_seconds",
        "stuck_seconds",
    ),
    "GPUs": ("tensor_split", "main_gpu", "per_gpu", "experts_on_cpu"),
    "Network": (
        "name", "host", "port", "balancers", "announce_url", "advertise", "nodes",
        "servers", "discover", "adopt", "adopt_urls",
    ),
    "Access": (
        "token_file", "approve", "api_key_file", "anonymous", "tls", "tls_cert",
        "tls_key", "cors_origins", "allowed_hosts", "media_hosts",
        "trusted_proxies",
    ),
    "Routing": (
        "policy", "on_battery", "low_battery", "owner_first", "calibrate", "queue",
        "overtake", "queue_seconds", "autoscale", "wait_goal", "groups", "attempts",
        "resume",
        "connect_seconds", "suspect_seconds", "forget_seconds",
    ),
    "Energy": ("prefer", "sleep", "sleep_after", "wake_command", "power_command"),
    "Process": (
        "config_file", "state_dir", "log_level", "drain_seconds", "record", "otlp",
    ),
}  # fmt: skip
"""Headings of help and the settings under each, both in the order of display."""

OTHER_HEADING = "Limits"
"""The heading of every setting that the table does not name."""

COMMON = frozenset((
    "models", "models_dir", "min_speed", "slots", "context", "gpu_layers", "name",
    "host", "port", "balancers", "announce_url", "nodes", "servers", "adopt",
    "token_file", "api_key_file", "approve", "anonymous", "tls", "policy", "on_battery",
    "queue", "config_file", "log_level",
))  # fmt: skip
"""Settings that `--help` shows; `--help-all` shows the others too."""

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(
    shape: type[SharedSettings], *, aside: Collection[str] = ()
) -> Callable[[F], F]:
    """Add `--config` and an option for every field of `shape`.

    Options that are not given stay None (or empty), so that file and environment count.
    Options under the headings `aside` are shown by `--help-all` only.
    """

    def decorate(command: F) -> F:
        known = [name for row in HEADINGS.values() for name in row]
        place = {name: number for number, name in enumerate(known)}
        names = ["config_file", *names_of(shape)]
        names.sort(key=lambda name: place.get(name, len(place)))
        for name in reversed(names):
            command = _option(shape, name, _shown_where(name, aside))(command)
        return command

    return decorate


def _option(
    shape: type[SharedSettings], name: str, where: dict[str, Any]
) -> Callable[[F], F]:
    if name == "config_file":
        kind, text = click.Path(path_type=Path), "TOML settings file."
        return click.option("--config", name, type=kind, help=text, **where)
    each, flag = shape.__dataclass_fields__[name], flag_name(shape, name)
    hint, text = get_type_hints(shape)[name], each.metadata["help"]
    if each.default not in (None, (), ""):
        text = f"{text}  [default: {_shown(each.default)}]"
    if hint is bool:
        both = f"{flag}/--no-{flag[2:]}" if each.default else flag
        return click.option(both, name, default=None, help=text, is_flag=True, **where)
    many, metavar = hint == tuple[str, ...], _metavar(name, hint)
    return click.option(flag, name, multiple=many, metavar=metavar, help=text, **where)


def _shown_where(name: str, aside: Collection[str]) -> dict[str, Any]:
    found = (heading for heading, names in HEADINGS.items() if name in names)
    heading = next(found, OTHER_HEADING)
    rare = name not in COMMON or heading in aside
    return {"cls": HeadedOption, "heading": heading, "rare": rare}


def _metavar(name: str, hint: Any) -> str:
    """Return the placeholder of a flag's value."""
    if name.endswith("_seconds"):
        return "SECONDS"
    if hint in {Path, Path | None}:
        return "PATH"
    return "NUMBER" if hint in {int, float} else "TEXT"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Path):
        return _from_home(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _from_home(path: Path) -> str:
    # Path.home() raises for a user without a name, as containers have.
    home = os.path.expanduser("~")  # noqa: PTH111
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


OTHERS = (
    "EDGESERVE_CONFIG_DIR",
    "EDGESERVE_MODELS_DIR",
    "EDGESERVE_URL",
    "EDGESERVE_API_KEY_FILE",
    "EDGESERVE_FINGERPRINT",
    "EDGESERVE_PARENT",  # what `edgeserve up` starts has it; see `tether.PARENT`
)
"""Variables that are not settings of node or balancer."""


def warn_of_unknown_variables() -> None:
    """Warn of unknown EDGESERVE_ variables at the terminal, one line each.

    They are removed from the environment, so that child processes do not warn again.
    """
    for variable, meant in list(unknown_variables(os.environ, set(_known()))):
        hint = f"did you mean {' or '.join(meant)}?" if meant else LIST
        click.echo(f"edgeserve: {variable} is not a known variable; {hint}", err=True)
        del os.environ[variable]


LIST = "`edgeserve config example` lists the settings"


def _known() -> Iterator[str]:
    yield from OTHERS
    for shape in (NodeSettings, BalancerSettings):
        yield from variables(shape)

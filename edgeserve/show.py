"""`edgeserve config`: every setting, its value and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeserve.columns import print_table
from edgeserve.examples import examples
from edgeserve.help import Group
from edgeserve.places import config_dir, moved_by

if TYPE_CHECKING:
    from edgeserve.config import SharedSettings

SECRETS = {"token_file": "token", "api_key_file": "api-keys"}
"""Setting → the file in the configuration folder that counts without it."""


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where they come from."""


@config.command(
    epilog=examples(
        ("edgeserve config show", "all of them"),
        ("edgeserve config show --section node --json", "for scripts"),
        ("EDGESERVE_NODE_SLOTS=4 edgeserve config show", "try a variable out"),
    )
)
@click.option("--section", type=click.Choice(["node", "balancer"]), help="One alone.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="TOML settings file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(section: str | None, file: Path | None, *, as_json: bool) -> None:
    """Show the settings that would count here and now.

    The later wins: default, settings file, environment, command line.
    """
    from edgeserve.config import default_file
    from edgeserve.strays import warn_of_strays

    warn_of_strays()
    sections = [section] if section else ["node", "balancer"]
    found = {name: resolved(name, file) for name in sections}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    folder, path = config_dir(), file or default_file()
    click.echo(f"Folder of settings, token and keys: {folder} ({in_words(folder)})")
    click.echo(f"Settings file: {path}{'' if path.exists() else ' (not there)'}\n")
    for name, settings in found.items():
        _print(name, settings)


@config.command(
    epilog=examples(
        ("edgeserve config example >edgeserve.toml", "start a file of your own"),
    )
)
def example() -> None:
    """Print a settings file with every setting, commented out."""
    from edgeserve.example_file import example_file

    click.echo(example_file(), nl=False)


def resolved(section: str, file: Path | None) -> dict[str, dict[str, Any]]:
    """Return field → its value, as TOML would have it, and its origin."""
    from edgeserve.config import BalancerSettings, NodeSettings, in_order, resolve

    shapes: dict[str, type[SharedSettings]] = {
        "node": NodeSettings,
        "balancer": BalancerSettings,
    }
    found = resolve(shapes[section], file=file)
    shown = {
        each.name: {
            "value": _plain(getattr(found.settings, each.name)),
            "origin": found.origins[each.name],
        }
        for each in in_order(shapes[section])
    }
    return shown | _secrets(found.settings)


def _secrets(settings: SharedSettings) -> dict[str, dict[str, Any]]:
    """The files of secrets that nobody names but that lie in their usual places."""
    usual = {name: config_dir() / file for name, file in SECRETS.items()}
    return {
        name: {"value": str(path), "origin": f"{in_words(path)}, as it is there"}
        for name, path in usual.items()
        if getattr(settings, name, path) is None and path.exists()
    }


def in_words(path: Path) -> str:
    """Say what has put a folder, or what lies in it, where it is."""
    variable = moved_by(path)
    return f"environment {variable}" if variable else "default"


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _print(section: str, settings: dict[str, dict[str, Any]]) -> None:
    rows = [
        (name, _shown(found["value"]), str(found["origin"]))
        for name, found in settings.items()
    ]
    print_table((f"[{section}]", "value", "from"), rows)
    click.echo()


def _shown(value: object) -> str:
    return "" if value is None else json.dumps(value)

"""`edgeserve models unload`, `pin` and `limit`: what is loaded, and what stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from edgeserve.cli.client import Endpoint, endpoint, endpoint_options, understood
from edgeserve.cli.models.details import desired_text
from edgeserve.errors import SettingsError
from edgeserve.help import Command, examples

Json = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


def node_option(text: str) -> Callable[[F], F]:
    """Add `--node`, a name or an id."""
    return click.option("--node", help=text)


def tell(place: Endpoint, name: str, action: str, body: Json) -> Any:
    """Give an order about a model, and return the answer. Raises NoAnswer."""
    path = f"/edgeserve/v1/models/{quote(name, safe='')}/{action}"
    return place.tell(path, body)


def _say_refusals(told: Json) -> None:
    """Say which nodes did not take an order that others took."""
    for sentence in told["refused"]:
        click.echo(f"edgeserve: {sentence}", err=True)


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models unload qwen3-4b", "wherever it is loaded"),
        ("edgeserve models unload qwen3-4b --node pi", "there alone"),
    ),
)
@click.argument("name")
@node_option("Node to unload it on. Default: all.")
@endpoint_options
def unload(name: str, node: str | None, url: str, api_key_file: Path | None) -> None:
    """Unload a model, once its running requests have ended.

    It is loaded again when it is asked for; `edgeserve models limit --forbid` prevents
    that.
    """
    with understood(url):
        told = tell(endpoint(url, api_key_file), name, "unload", {"node": node})
        for each in told["unloaded"]:
            click.echo(f"{each['engine']['id']} leaves {each['node']}")
        _say_refusals(told)
        if not told["unloaded"]:
            click.echo(f"{told['model']} is not loaded")


@click.command(
    cls=Command,
    epilog=examples(
        (
            "edgeserve models pin qwen3-4b",
            "where it is loaded, else where it is quickest",
        ),
        ("edgeserve models pin qwen3-4b --node pi", "on a node"),
        ("edgeserve models pin qwen3-4b --off", "it may leave again"),
    ),
)
@click.argument("name")
@node_option("Node to pin it to. Default: where it is loaded, else the best.")
@click.option("--off", is_flag=True, help="End it, on the node or on all.")
@endpoint_options
def pin(
    name: str, node: str | None, url: str, api_key_file: Path | None, *, off: bool
) -> None:
    """Keep a model loaded on a node, also after restarts.

    No other model takes its memory, and it stays while it is idle.
    """
    with understood(url):
        body = {"node": node, "off": off}
        told = tell(endpoint(url, api_key_file), name, "pin", body)
        what = "no longer pinned to" if off else "pinned to"
        for where in told["desired"]:
            click.echo(f"{told['model']} is {what} {where}")
        _say_refusals(told)
        if not told["desired"]:
            click.echo(f"{told['model']} is not pinned")


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models limit qwen3-4b --min 1 --max 3", "loaded on 1 to 3 nodes"),
        ("edgeserve models limit qwen3-4b --keep-alive 10m", "unload it when idle"),
        ("edgeserve models limit big --forbid --node pi", "never load it there"),
        ("edgeserve models limit qwen3-4b --min none --max none", "as usual"),
    ),
)
@click.argument("name")
@click.option("--min", "fewest", help="Fewest engines in the fleet, or `none`.")
@click.option("--max", "most", help="Most engines in the fleet, or `none`.")
@click.option(
    "--keep-alive",
    help="Idle time until it is unloaded: 90s, 10m, 2h, `never`, or `default`.",
)
@click.option(
    "--forbid/--allow", "forbidden", default=None, help="Never load it, or again."
)
@node_option("Node for --keep-alive, --forbid and --allow. Default: all that have it.")
@endpoint_options
def limit(
    name: str,
    fewest: str | None,
    most: str | None,
    keep_alive: str | None,
    forbidden: bool | None,
    node: str | None,
    url: str,
    api_key_file: Path | None,
) -> None:
    """Limit how many engines of a model are loaded, how long, and where.

    What is not named stays. The fewest and the most are kept by the balancer, the rest
    by each node that has the model now.
    """
    body: dict[str, Any] = {}
    if fewest is not None:
        body["min"] = count(fewest, "--min")
    if most is not None:
        body["max"] = count(most, "--max")
    if keep_alive is not None:
        body["keep_alive"] = seconds(keep_alive)
    if forbidden is not None:
        body["forbidden"] = forbidden
    if not body:
        raise SettingsError("nothing to change is named; --help lists the limits")
    if node is not None:
        body["node"] = node
    with understood(url):
        told = tell(endpoint(url, api_key_file), name, "limit", body)
        for line in limit_lines(told, of_fleet=not body.keys().isdisjoint(OF_FLEET)):
            click.echo(line)
        _say_refusals(told)


OF_FLEET = {"min", "max"}


def limit_lines(told: Json, *, of_fleet: bool) -> list[str]:
    """Say what counts now; of the fleet only where that was set, now or before."""
    model, limits = str(told["model"]), told["limits"]
    fewest, most = limits["min"], limits["max"]
    loaded = f"at least {fewest}" if most is None else f"{fewest or 0} to {most}"
    if fewest is None and most is None:
        loaded = "any number"
    lines = [f"{model}: {loaded} loaded in the fleet"]
    if not of_fleet and fewest is None and most is None:
        lines.clear()
    for where, desired in told["desired"].items():
        lines.append(f"{model} on {where}: {desired_text(desired)}")
    return lines


def count(text: str, option: str) -> int | None:
    """Read a number of engines. Raises SettingsError."""
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise SettingsError(f"{option} is {text!r}: must be a number, or none")
    return int(text)


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float | None:
    """Read a keep-alive; 0 is for ever, None the node's own. Raises SettingsError."""
    if text == "default":
        return None
    if text == "never":
        return 0.0
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd]?)", text)
    if found is None:
        raise SettingsError(
            f"--keep-alive is {text!r}: must be like 90s, 10m, 2h, never or default"
        )
    return float(int(found[1]) * UNITS[found[2]])

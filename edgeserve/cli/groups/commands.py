"""`edgeserve models group`: form a group of nodes for a model, end it, or ask first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from edgeserve.cli.client import endpoint, endpoint_options, understood
from edgeserve.cli.models.loading import loading_bar, wait_until_loaded
from edgeserve.cli.models.orders import tell
from edgeserve.errors import SettingsError
from edgeserve.help import Command, examples
from edgeserve.terminal import Row, print_table

GB = 1e9

HEADS = ("node", "layers", "memory", "computes", "network")

Json = Mapping[str, Any]


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models group qwen3-32b --dry-run", "who, how fast, what else"),
        ("edgeserve models group qwen3-32b", "form it before it is asked for"),
        ("edgeserve models group qwen3-32b --nodes pc,nuc --head pc", "of these"),
        ("edgeserve models group qwen3-32b --dissolve", "end it"),
    ),
)
@click.argument("name")
@click.option("--nodes", help="Nodes that may take part, with commas between.")
@click.option("--head", help="Node with the file that leads it. Default: the quickest.")
@click.option("--dry-run", is_flag=True, help="Say what to expect, and form nothing.")
@click.option("--dissolve", is_flag=True, help="End it after its running requests.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@endpoint_options
def group(
    name: str,
    nodes: str | None,
    head: str | None,
    url: str,
    api_key_file: Path | None,
    *,
    dry_run: bool,
    dissolve: bool,
    no_wait: bool,
) -> None:
    """Serve a model by several nodes together.

    A request for a model that fits on no node forms its group by itself. Layers are
    divided by memory and by measured speeds and networks.
    """
    place = endpoint(url, api_key_file)
    members = [each.strip() for each in (nodes or "").split(",") if each.strip()]
    if dissolve and (members or head or dry_run):
        raise SettingsError("--dissolve ends the whole group; it takes no other option")
    body = {"nodes": members, "head": head, "dissolve": dissolve, "dry_run": dry_run}
    with understood(url):
        told = tell(place, name, "group", body)
        if dissolve:
            for each in told["dissolved"]:
                click.echo(f"the group of {each['model']} on {each['node']} ends")
            if not told["dissolved"]:
                click.echo(f"{told['model']} has no group")
            return
        for line in shown(told):
            click.echo(line)
        print_table(HEADS, [row(each) for each in told["members"]])
        for line in advised(told):
            click.echo(line)
        if dry_run or no_wait:
            return
        engine, where = str(told["engine"]), str(told["node"])
        with loading_bar(f"{engine} on {where}") as show:
            seconds = wait_until_loaded(place, where, engine, show)
    click.echo(f"{engine} on {where} is loaded, after {seconds:.1f} s")


def shown(told: Json) -> Iterator[str]:
    """Say what to expect of a group."""
    yield (
        f"{told['model']} on {len(told['members'])} nodes, led by {told['node']}:"
        f" about {told['tokens_per_second']:g} tokens/s,"
        f" prompts at {told['prompt_tokens_per_second']:g};"
        f" context {told['context']}, loaded in about {told['load_seconds']:.0f} s"
    )
    if told["measured"]:
        yield f"its group that serves now writes {told['measured']:g} tokens/s"
    if told["unknown_speed"]:
        names = ", ".join(told["unknown_speed"])
        yield (
            f"how fast {names} can be was not measured yet, only guessed from the"
            " hardware: it may be several times slower; the first answers will show"
        )
    if told["unmeasured"]:
        names = ", ".join(told["unmeasured"])
        yield f"the network to {names} was not measured, and is taken for a poor one"


def row(member: Json) -> Row:
    """Return a member's row."""
    network = f"{member['network_ms']:g} ms" if member["network_ms"] else "-"
    return (
        f"{member['node']} (head)" if member["head"] else str(member["node"]),
        str(member["layers"]),
        f"{member['memory'] / GB:.1f} GB",
        f"{member['computing_ms']:g} ms",
        network,
    )


def advised(told: Json) -> Iterator[str]:
    """Say which variants one machine serves by itself, and whether that is quicker."""
    for each in told["alone"]:
        than = "quicker" if each["quicker"] else "not quicker"
        yield (
            f"{each['variant']} on {each['node']} alone: about"
            f" {each['tokens_per_second']:g} tokens/s, {than}"
        )

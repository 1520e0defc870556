"""`edgeserve nodes` and `usage`: show the fleet, change its nodes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from edgeserve.cli.client import (
    endpoint,
    endpoint_options,
    json_option,
    show,
    understood,
)
from edgeserve.cli.node_log import log
from edgeserve.cli.nodes.table import NODE_HEADS, node_rows
from edgeserve.errors import CommandError
from edgeserve.help import Command, Group, examples
from edgeserve.terminal import Row

Json = Mapping[str, Any]


@click.group(
    cls=Group,
    headings={
        "Members": ("approve", "deny", "revoke", "allow"),
        "Machines": ("log", "sleep", "wake"),
    },
    invoke_without_command=True,
    epilog=examples(
        ("edgeserve nodes", "the fleet of the balancer on this machine"),
        ("edgeserve nodes --url http://nuc:8080", "of another one"),
        ("edgeserve nodes --json | jq '.[].report.name'", "for scripts"),
        ("edgeserve nodes approve pi", "let a machine in that asks to join"),
        ("edgeserve nodes revoke pi", "keep a node out, at once"),
        ("edgeserve nodes log pi -f", "what it logs"),
        ("edgeserve nodes wake pi", "its machine sleeps"),
    ),
)
@endpoint_options
@json_option
@click.pass_context
def nodes(
    context: click.Context, url: str, api_key_file: Path | None, *, as_json: bool
) -> None:
    """Show the fleet's nodes, and what each serves.

    The commands below show a node's log, and decide which machines belong to the fleet.
    NAME is a node's name, its id, or the start of the id.
    """
    if context.invoked_subcommand:
        given = {"url": url, "api_key_file": api_key_file}
        context.default_map = dict.fromkeys(nodes.commands, given)
        return
    found = endpoint(url, api_key_file).get(NODES)
    none = (
        "no nodes yet; `edgeserve node start` starts one, `edgeserve doctor` finds why"
        " one that runs is not seen"
    )
    show(url, found, NODE_HEADS, node_rows, none, as_json=as_json)


nodes.add_command(log)

NODES = "/edgeserve/v1/nodes"


@nodes.command(
    epilog=examples(
        ("edgeserve nodes approve pi", "compare the codes, then answer y"),
        ("edgeserve nodes approve pi --code 123-456", "without a question"),
    )
)
@click.argument("name")
@click.option("--code", default="", help="The code that the machine shows.")
@endpoint_options
def approve(name: str, code: str, url: str, api_key_file: Path | None) -> None:
    """Let a machine in that asks to join: it gets the fleet token.

    The machine shows a code where `edgeserve join` runs, and `edgeserve nodes` shows
    one here. Approve only if both are equal.
    """
    node = _asking(name, endpoint(url, api_key_file).get(NODES), url)
    code = code or _compared(name, node, url)
    _act(name, "approve", url, api_key_file, {"code": code})
    click.echo(f"{name} has the fleet token; `edgeserve node start` there")


def _asking(name: str, found: Any, url: str) -> Json:
    """Return the node of that name, or with that beginning of its id, that asks."""
    with understood(url):
        asking = [each for each in found if each["state"] == "asking"]
        named = [
            each
            for each in asking
            if each["name"] == name or str(each["id"]).startswith(name)
        ]
        if not named:
            there = ", ".join(str(each["name"]) for each in asking) or "none"
            raise CommandError(f"no node {name!r} asks to join; there are: {there}")
        if len(named) > 1:
            ids = " and ".join(str(each["id"]) for each in named)
            raise CommandError(
                f"several machines are called {name!r}; use an id: {ids}"
            )
        node: Json = named[0]
        return node


def _compared(name: str, node: Json, url: str) -> str:
    """Show the code of the machine, ask at a terminal, and return the code."""
    with understood(url):
        code, where = str(node["code"]), str(node["url"])
    question = f"{name} at {where} asks to join. Does it show {code}, too?"
    if sys.stdin.isatty() and not click.confirm(question):
        raise CommandError(f"not approved; `edgeserve nodes deny {name}` sends it away")
    return code


@nodes.command(epilog=examples(("edgeserve nodes deny pi", "it gets nothing")))
@click.argument("name")
@endpoint_options
def deny(name: str, url: str, api_key_file: Path | None) -> None:
    """Send a machine away that asks to join."""
    _asking(name, endpoint(url, api_key_file).get(NODES), url)
    _act(name, "deny", url, api_key_file)
    click.echo(f"{name} was sent away")


@nodes.command(epilog=examples(("edgeserve nodes revoke pi", "and rotate the token")))
@click.argument("name")
@endpoint_options
def revoke(name: str, url: str, api_key_file: Path | None) -> None:
    """Keep a node out, at once and after restarts.

    Its connections are closed; requests that it was answering go to other nodes. The
    machine still has the fleet token, with which it can return under another id and
    talk to the other nodes: `edgeserve token rotate --keep-hours 0`, with the new token
    copied to the others, shuts it out for good.
    """
    _act(name, "revoke", url, api_key_file)
    click.echo(
        f"{name} is out. Its machine still holds the fleet token: `edgeserve token"
        " rotate --keep-hours 0`, and the new token on the other machines, shuts it out"
        f" for good. `edgeserve nodes allow {name}` undoes this."
    )


@nodes.command(epilog=examples(("edgeserve nodes allow pi", "it serves again")))
@click.argument("name")
@endpoint_options
def allow(name: str, url: str, api_key_file: Path | None) -> None:
    """Let a node in again that was revoked."""
    _act(name, "allow", url, api_key_file)
    click.echo(f"{name} may join again")


@nodes.command(epilog=examples(("edgeserve nodes sleep pi", "until it is needed")))
@click.argument("name")
@endpoint_options
def sleep(name: str, url: str, api_key_file: Path | None) -> None:
    """Let a node's machine sleep.

    It does what its setting `sleep` says, and refuses while the machine is in use. Its
    models stay callable: a request for one that nothing else serves wakes it.
    """
    _act(name, "sleep", url, api_key_file)
    click.echo(f"{name} goes to sleep; `edgeserve nodes wake {name}` wakes it")


@nodes.command(epilog=examples(("edgeserve nodes wake pi", "by a magic packet")))
@click.argument("name")
@endpoint_options
def wake(name: str, url: str, api_key_file: Path | None) -> None:
    """Wake a node's machine.

    The balancer sends a magic packet to its network card, and runs its own setting
    `wake_command`, if there is one.
    """
    _act(name, "wake", url, api_key_file)
    click.echo(f"{name} is being woken; `edgeserve nodes` shows when it is up")


def _act(
    name: str, action: str, url: str, key_file: Path | None, body: Any = None
) -> None:
    """Have the balancer do it. Raises NoAnswer."""
    path = f"{NODES}/{quote(name, safe='')}/{action}"
    endpoint(url, key_file).tell(path, body or {})


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve usage", "of the last 30 days, by key, model and day"),
        ("edgeserve usage --days 7 --key laptop", "one key's"),
        ("edgeserve usage --json", "for scripts"),
    ),
)
@endpoint_options
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=30,
    show_default=True,
    help="How many days, the last one today.",
)
@click.option("--key", "name", help="Name of one key.")
@json_option
def usage(
    url: str, api_key_file: Path | None, name: str | None, *, days: int, as_json: bool
) -> None:
    """Show the requests and tokens of each key, by model and day.

    `cached` are tokens of prompts that were not read again. A key that is not an admin
    sees its own usage.
    """
    query = {"days": days} | ({"key": name} if name else {})
    path = f"/edgeserve/v1/usage?{urlencode(query)}"
    found = endpoint(url, api_key_file).get(path)
    heads = tuple(head.removesuffix("_tokens") for head in USAGE)
    none = f"nothing was used in {days} days"
    show(url, found, heads, usage_rows, none, as_json=as_json)


USAGE = (
    *("key", "model", "day", "requests"),
    *("prompt_tokens", "cached_tokens", "answer_tokens"),
)


def usage_rows(found: list[Json]) -> list[Row]:
    """One row per key, model and day."""
    return [tuple(str(each[head]) for head in USAGE) for each in found]

"""`edgeserve nodes log`: the lines that a node keeps of its log, through a balancer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from edgeserve.cli.client import (
    Endpoint,
    Refusal,
    endpoint,
    endpoint_options,
    understood,
)
from edgeserve.help import Command, examples
from edgeserve.terminal import for_terminal, printable

EVERY_SECONDS = 1.0
"""How often a node is asked for more."""

PASSING = (502, 503, 504)
"""Statuses of a node that may come back."""

Json = Mapping[str, Any]


@click.command(
    "log",
    cls=Command,
    epilog=examples(
        ("edgeserve nodes log pi", "what it has logged lately"),
        ("edgeserve nodes log pi -f", "go on with what it logs from now on"),
    ),
)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    "most",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="Lines of the past.",
)
@endpoint_options
def log(
    name: str, most: int, url: str, api_key_file: Path | None, *, follow: bool
) -> None:
    """Show what a node has logged lately.

    A node keeps its latest 500 lines in memory, and gives them to the balancers of its
    fleet. With `--log-level debug`, there are those of its engines among them.
    """
    at = endpoint(url, api_key_file)
    place = f"/edgeserve/v1/nodes/{quote(name, '')}/log"
    first = at.get(place)
    with understood(url):
        for line in shown(first, most):
            click.echo(line)
        if not first["lines"]:
            click.echo(f"{name} has logged nothing since it started", err=True)
    if follow:
        with suppress(KeyboardInterrupt), understood(url):
            for line in followed(at, place, first["next"], time.sleep):
                click.echo(line)


def followed(
    at: Endpoint, place: str, after: str, sleep: Callable[[float], None]
) -> Iterator[str]:
    """Yield each line from now on; say once that a node is away. Raises NoAnswer."""
    problem = ""
    while True:
        sleep(EVERY_SECONDS)
        try:
            found = at.get(f"{place}?{urlencode({'after': after})}")
        except Refusal as refusal:
            if refusal.status not in PASSING:
                raise
            if str(refusal) != problem:
                problem = str(refusal)
                click.echo(for_terminal(f"{problem}; trying again"), err=True)
            continue
        after, problem = str(found["next"]), ""
        yield from shown(found, len(found["lines"]))


def shown(found: Json, most: int) -> Iterator[str]:
    """Yield the last lines of an answer, and before them how many are missing."""
    lines = found["lines"]
    if found["dropped"] and most >= len(lines):
        yield f"({found['dropped']} earlier lines are no longer kept)"
    for each in lines[max(0, len(lines) - most) :]:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["at"]))
        level, source = str(each["level"]).upper(), each["source"]
        yield printable(f"{at} {level:<7} {source}: {each['text']}")

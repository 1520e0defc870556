"""`edgeserve models load`: have a model loaded, and wait until it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgeserve.cli.client import Endpoint, endpoint, endpoint_options, understood
from edgeserve.cli.models.details import OVERVIEW
from edgeserve.cli.models.orders import node_option, tell
from edgeserve.errors import CommandError
from edgeserve.help import Command, examples

POLL_SECONDS = 0.3

NEWS_SECONDS = 5.0
"""So long an engine may seem absent after its load was ordered: news takes a moment."""

LONGEST_SECONDS = 3600.0

Json = Mapping[str, Any]
Show = Callable[[float | None], None]


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models load qwen3-4b", "where that is quickest"),
        ("edgeserve models load qwen3-4b:Q4_K_M --node pi", "a variant, on a node"),
        ("edgeserve models load big --drain", "others may finish, then leave for it"),
    ),
)
@click.argument("name")
@node_option("Node to load it on. Default: where that is quickest.")
@click.option(
    "--drain", is_flag=True, help="Engines in its way finish their requests and leave."
)
@click.option("--no-wait", is_flag=True, help="Return at once.")
@endpoint_options
def load(
    name: str,
    node: str | None,
    url: str,
    api_key_file: Path | None,
    *,
    drain: bool,
    no_wait: bool,
) -> None:
    """Load a model before it is asked for.

    Idle engines leave where there is no room, pinned ones never; busy ones only with
    --drain.
    """
    place = endpoint(url, api_key_file)
    body = {"node": node, "drain": drain}
    with understood(url):
        told = tell(place, name, "load", body)
        engine, where = told["engine"], str(told["node"])
        what = f"{engine['id']} on {where}"
        if engine["state"] in LOADED:
            click.echo(f"{what} is loaded")
            return
        if no_wait:
            click.echo(f"{what} loads; `edgeserve models` shows how far it is")
            return
        with loading_bar(what) as show:
            seconds = wait_until_loaded(place, where, str(engine["id"]), show)
    click.echo(f"{what} is loaded, after {seconds:.1f} s")


LOADED = ("ready", "busy")


def wait_until_loaded(place: Endpoint, node: str, id_: str, show: Show) -> float:
    """Wait until it is loaded; returns the seconds. Raises CommandError."""
    began, seen = time.monotonic(), False
    while (waited := time.monotonic() - began) < LONGEST_SECONDS:
        engine = _engine(place, node, id_)
        state = str(engine["state"])
        if state in LOADED:
            return waited
        seen = seen or state == "loading"
        if state != "loading" and (seen or waited > NEWS_SECONDS):
            why = engine.get("reason") or "its node says no more"
            raise CommandError(f"{id_} on {node} is not loaded, but {state}: {why}")
        show(engine.get("progress"))
        time.sleep(POLL_SECONDS)
    raise CommandError(f"{id_} on {node} is not loaded after {LONGEST_SECONDS:g} s")


def _engine(place: Endpoint, node: str, id_: str) -> Json:
    """Return the report of an engine. Raises CommandError where it has gone."""
    for row in place.get(OVERVIEW):
        for each in row["engines"]:
            if each["node"] == node and each["report"]["id"] == id_:
                report: Json = each["report"]
                return report
    raise CommandError(f"{node} has left, or no longer has {id_}")


@contextmanager
def loading_bar(what: str) -> Generator[Show]:
    """Show a progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(None), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(f"loading {what}", total=None)

        def show(progress: float | None) -> None:
            if progress is not None:
                bars.update(task, completed=progress, total=1.0)

        yield show

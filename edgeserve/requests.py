"""`edgeserve requests`: the latest requests, what was predicted and what happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edgeserve.client import NoAnswer, endpoint, endpoint_options
from edgeserve.columns import Entry, print_table
from edgeserve.examples import examples

REQUESTS = "/edgeserve/v1/requests"

Json = Mapping[str, Any]

HEADS = (
    "time",
    "request",
    "client",
    "model",
    "node",
    "outcome",
    "waited",
    "first",
    "predicted",
    "cached",
    "tokens/s",
    "whole",
)


@click.command(
    epilog=examples(
        ("edgeserve requests", "the latest twenty, newest first"),
        ("edgeserve requests --last 100", "more of them"),
        ("edgeserve requests --json | jq -r '.[].id'", "for scripts"),
    )
)
@endpoint_options
@click.option(
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the balancer says.")
def requests(url: str, api_key_file: Path | None, *, last: int, as_json: bool) -> None:
    """List the latest requests with predicted and actual times.

    Times are seconds: `waited` for a slot, the `first` token and what was `predicted`
    of it, the `whole` answer. `cached` are tokens of the prompt that were not read
    again. `edgeserve why ID` explains one request.
    """
    found: list[Json] = endpoint(url, api_key_file).get(REQUESTS)[:last]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        print_table(HEADS, shaped(url, found))
    else:
        click.echo("no request yet; `edgeserve chat` makes one", err=True)


def shaped(url: str, found: Iterable[Json]) -> list[Entry]:
    """One row per request. Raises NoAnswer for what is no list of requests."""
    now = time.time()
    try:
        return [_entry(each, now) for each in found]
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(
            f"{url} answers, but not like an edgeserve balancer of this version"
        ) from error


def _entry(request: Json, now: float) -> Entry:
    *before, last = request["attempts"] or [{}]
    predicted: Json = last.get("predicted") or {}
    actual: Json = last.get("actual") or {}
    cells = (
        clock(request["arrived_at"], now),
        str(request["id"]),
        str(request["client"]),
        str(last.get("variant") or request["model"] or "any"),
        str(last.get("node", "")),
        str(request["outcome"] or request["state"]),
        seconds(request["waited_seconds"]),
        seconds(actual.get("first_token_seconds")),
        seconds(predicted.get("first_token_seconds")),
        cached(actual),
        number(actual.get("tokens_per_second")),
        seconds(request["seconds"]),
    )
    return Entry(
        cells, [f"before: {each['node']}: {each['outcome']}" for each in before]
    )


def clock(at: float, now: float) -> str:
    """Show a time of this day; of another one, with its date."""
    then, today = (datetime.fromtimestamp(each, UTC).astimezone() for each in (at, now))
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%m-%d %H:%M}"


def cached(actual: Json) -> str:
    """Tokens found cached, of all that the prompt has."""
    if actual.get("prompt_tokens") is None:
        return ""
    return f"{actual['cached_tokens'] or 0}/{actual['prompt_tokens']}"


def seconds(value: float | None) -> str:
    """Show a time; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def number(value: float | None) -> str:
    """Show a rate; nothing where there is none."""
    return "" if value is None else f"{value:.1f}"

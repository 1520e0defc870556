"""`edgeserve requests` and `edgeserve why`: the commands that explain requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.cli.client import (
    endpoint,
    endpoint_options,
    json_option,
    show,
    understood,
)
from edgeserve.help import Command, examples
from edgeserve.terminal import Entry, Row, print_table, printable, width, wrapped

REQUESTS = "/edgeserve/v1/requests"

Json = Mapping[str, Any]

HEADS = (
    "time", "request", "client", "model", "node", "outcome", "waited", "first",
    "predicted", "cached", "tokens/s", "whole",
)  # fmt: skip


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve requests", "the latest twenty, newest first"),
        ("edgeserve requests --last 100", "more of them"),
        ("edgeserve requests --json | jq -r '.[].id'", "for scripts"),
    ),
)
@endpoint_options
@click.option(
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Number of requests to show.",
)
@json_option
def requests(url: str, api_key_file: Path | None, *, last: int, as_json: bool) -> None:
    """List the latest requests with predicted and actual times.

    Times are seconds: `waited` for a slot, the `first` token and what was `predicted`
    of it, the `whole` answer. `cached` are tokens of the prompt that were not read
    again. `edgeserve why ID` explains one request.
    """
    found: list[Json] = endpoint(url, api_key_file).get(REQUESTS)[:last]
    none = "no request yet; `edgeserve chat` makes one"
    show(url, found, HEADS, request_rows, none, as_json=as_json)


def request_rows(found: Iterable[Json]) -> list[Entry]:
    """One row per request."""
    now = time.time()
    return [_request_entry(each, now) for each in found]


def _request_entry(request: Json, now: float) -> Entry:
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
    below = [f"before: {each['node']}: {each['outcome']}" for each in before]
    if routed := request.get("route"):
        below.append(f"route {routed['name']}: {routed['why']}")
    return Entry(cells, below)


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


CANDIDATE_HEADS = (
    "node", "engine", "cost", "wait", "ahead", "read", "write", "cached", "first",
)  # fmt: skip


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve requests", "find the request; answers name it in a header, too"),
        ("edgeserve why req-1a2b3c", "every candidate, predicted and ruled out"),
    ),
)
@click.argument("request_id", metavar="ID")
@endpoint_options
@json_option
def why(request_id: str, url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Explain why a request went where it went, and what happened there.

    Of each engine, predicted seconds: `wait` for a slot, `ahead` for prompts that are
    being read there, `read` the prompt, `write` the answer, the `first` token; `cost`
    is the sum that decided, in which others' time counts, too.
    """
    path = f"{REQUESTS}/{quote(request_id, safe='')}"
    found: Json = endpoint(url, api_key_file).get(path)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    with understood(url):
        _explain(found)


def _explain(found: Json) -> None:
    _say(f"{found['id']}: {', '.join(summary_of(found, time.time()))}")
    if routed := found.get("route"):
        _say(f"route {routed['name']}: {routed['model']} answers ({routed['why']})")
    for count, attempt in enumerate(found["attempts"], 1):
        click.echo()
        what = attempt["outcome"] or "under way"
        _say(f"{count}. {attempt['node']} ({attempt['variant']}): {what}")
        for line in (*comparison_of(attempt), *move_of(attempt)):
            _say(f"   {line}")
        _show(attempt["candidates"])
    if not found["attempts"]:
        _show(found["candidates"])


def _say(line: str) -> None:
    click.echo("\n".join(wrapped(printable(line), width())))


def _show(candidates: list[Json]) -> None:
    click.echo()
    if not candidates:
        click.echo("No engine was looked at.")
        return
    click.echo("Engines, the chosen one first; predicted seconds:")
    print_table(CANDIDATE_HEADS, rows(candidates))


def summary_of(found: Json, now: float) -> Iterator[str]:
    """Yield the model, the outcome, the client and the times of a request."""
    yield str(found["model"] or "any model")
    yield str(found["outcome"] or found["state"])
    yield f"asked by {found['client']} at {clock(found['arrived_at'], now)}"
    yield f"waited {seconds(found['waited_seconds'])} s for a slot"
    for each in found.get("loads", ()):
        yield _load(each)
    if found["seconds"] is not None:
        yield f"took {seconds(found['seconds'])} s in all"


def _load(event: Json) -> str:
    """Return what happened to a load that the request waited for."""
    what = f"{event['model']} on {event['node']}"
    match event["kind"]:
        case "load_ordered":
            return f"{what} began to load ({event['reason']})"
        case "loaded" if event["seconds"] is not None:
            return f"{what} was loaded after {seconds(event['seconds'])} s"
        case "loaded":
            return f"{what} was loaded"
        case _:
            return f"{what} did not load: {event['reason']}"


def rows(candidates: list[Json]) -> list[Entry]:
    """One row per candidate, the chosen one first."""
    chosen_first = sorted(candidates, key=lambda each: not each["chosen"])
    return [Entry(_cells(each), [_choice(each)]) for each in chosen_first]


def _choice(each: Json) -> str:
    reason = each["reason"] or "no reason is known"
    return f"chosen: {reason}" if each["chosen"] else f"not chosen: {reason}"


def _cells(each: Json) -> Row:
    names = str(each["node"]), str(each["engine"])
    parts: Json = each.get("predicted") or {}
    if not parts:
        return (*names, *[""] * 7)
    least = "" if parts["exact"] else "≥ "
    return (
        *names,
        least + seconds(parts["cost_seconds"]),
        seconds(parts["wait_seconds"]),
        seconds(parts["ahead_seconds"]),
        least + seconds(parts["read_seconds"]),
        seconds(parts["write_seconds"]),
        cached(parts) if parts["exact"] else "",
        least + seconds(parts["first_token_seconds"]),
    )


def comparison_of(attempt: Json) -> Iterator[str]:
    """Yield the predicted and the measured values of an attempt."""
    predicted: Json = attempt.get("predicted") or {}
    actual: Json = attempt.get("actual") or {}
    for name, called, text in (
        ("first_token_seconds", "first token", _seconds),
        ("prompt_tokens", "prompt", _tokens),
        ("cached_tokens", "of it cached", _tokens),
        ("tokens_per_second", "speed", _rate),
    ):
        guess, happened = predicted.get(name), actual.get(name)
        if guess is not None or happened is not None:
            yield (
                f"{called}: {'not' if guess is None else text(guess)} predicted,"
                f" {'not' if happened is None else text(happened)} measured"
            )


def move_of(attempt: Json) -> Iterator[str]:
    """Yield what was moved to the slot of an attempt, and why that paid."""
    move: Json | None = attempt.get("cache_move")
    if move is None:
        return
    where = move["from"] if move["from"] != move["to"] else "its own disk"
    took = seconds(move["seconds"] or move["predicted_seconds"])
    happened = {"moved": "came", None: "comes"}.get(move["outcome"], "did not come")
    yield (
        f"{_tokens(move['tokens'])} of it {happened} from {where} in {took} s;"
        f" {seconds(move['predicted_seconds'])} s predicted, and"
        f" {seconds(move['read_anew_seconds'])} s to read them anew"
    )
    if happened == "did not come":
        yield str(move["outcome"])


def _seconds(value: float) -> str:
    return f"{seconds(value)} s"


def _rate(value: float) -> str:
    return f"{number(value)} tokens/s"


def _tokens(value: int) -> str:
    return "1 token" if value == 1 else f"{value} tokens"

"""`edgeserve why ID`: where a request could have gone, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.client import NoAnswer, endpoint, endpoint_options
from edgeserve.columns import Row, print_table, printable
from edgeserve.examples import examples
from edgeserve.requests import REQUESTS, cached, number, seconds

Json = Mapping[str, Any]

HEADS = (
    "node",
    "engine",
    "cost",
    "wait",
    "ahead",
    "read",
    "write",
    "cached",
    "first token",
    "why",
)


@click.command(
    epilog=examples(
        ("edgeserve requests", "find the request; answers name it in a header, too"),
        ("edgeserve why req-1a2b3c", "every candidate, predicted and ruled out"),
    )
)
@click.argument("request_id", metavar="ID")
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print what the balancer says.")
def why(request_id: str, url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Explain why a request went where it went, and what happened there.

    Times are predicted seconds: `wait` for a slot, `ahead` for prompts that are being
    read there, `read` the prompt, `write` the answer; `cost` is the sum that decided,
    in which others' time counts, too.
    """
    path = f"{REQUESTS}/{quote(request_id, safe='')}"
    found: Json = endpoint(url, api_key_file).get(path)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    try:
        _explain(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(
            f"{url} answers, but not like an edgeserve balancer of this version"
        ) from error


def _explain(found: Json) -> None:
    outcome = found["outcome"] or found["state"]
    waited = seconds(found["waited_seconds"])
    _say(
        f"{found['id']}: {found['model'] or 'any model'}, {outcome}, waited {waited} s"
    )
    for count, attempt in enumerate(found["attempts"], 1):
        click.echo()
        _say(f"{count}. {attempt['node']} ({attempt['variant']}): {attempt['outcome']}")
        for line in came_of_it(attempt):
            _say(f"   {line}")
        print_table(HEADS, rows(attempt["candidates"]))
    if not found["attempts"]:
        print_table(HEADS, rows(found["candidates"]))


def _say(line: str) -> None:
    click.echo(printable(line))


def rows(candidates: list[Json]) -> list[Row]:
    """One row per candidate, the chosen one first."""
    return [
        _row(each) for each in sorted(candidates, key=lambda each: not each["chosen"])
    ]


def _row(each: Json) -> Row:
    parts: Json = each.get("predicted") or {}
    if not parts:
        return each["node"], each["engine"], *[""] * 7, each["reason"]
    least = "" if parts["exact"] else "≥ "
    return (
        str(each["node"]),
        str(each["engine"]),
        least + seconds(parts["cost_seconds"]),
        seconds(parts["wait_seconds"]),
        seconds(parts["ahead_seconds"]),
        least + seconds(parts["read_seconds"]),
        seconds(parts["write_seconds"]),
        cached(parts) if parts["exact"] else "",
        least + seconds(parts["first_token_seconds"]),
        str(each["reason"]),
    )


def came_of_it(attempt: Json) -> Iterator[str]:
    """What was predicted of the engine that was asked, beside what happened."""
    predicted: Json = attempt.get("predicted") or {}
    actual: Json = attempt.get("actual") or {}
    for name, show in (
        ("first_token_seconds", seconds),
        ("cached_tokens", _whole),
        ("prompt_tokens", _whole),
        ("tokens_per_second", number),
    ):
        if predicted.get(name) is not None:
            happened = show(actual.get(name)) or "not known"
            yield (
                f"{name.replace('_', ' ')}: {show(predicted[name])} predicted,"
                f" {happened}"
            )


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)

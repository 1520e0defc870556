"""`edgeserve bench`: measure an endpoint, or two side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.cli.client import endpoint, endpoint_options
from edgeserve.help import Command, examples, under
from edgeserve.terminal import print_table

if TYPE_CHECKING:
    from edgeserve.cli.bench.figures import Figures

STREAMS = "1,4,16,32"
MOST_STREAMS = 4096

FILE = click.Path(path_type=Path, dir_okay=False)


def _streams(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in value.split(","))
    except ValueError as error:
        raise click.BadParameter("must be numbers such as 1,4,16,32") from error
    if not all(1 <= each <= MOST_STREAMS for each in found):
        raise click.BadParameter(f"must be between 1 and {MOST_STREAMS}")
    return tuple(sorted(set(found)))


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve bench", "the endpoint on this machine"),
        ("edgeserve bench --streams 1,8 --answer 64", "fewer and shorter answers"),
        (
            "edgeserve bench --compare http://gpu:8000",
            "beside another server, in turns",
        ),
        ("edgeserve bench --picture bench.png --json bench.json", "keep the figures"),
    ),
)
@endpoint_options
@click.option("--model", help="Model to ask; by default the first chat model listed.")
@under("Comparison")(
    "--compare", help="URL of another endpoint, which is measured in turns."
)
@under("Comparison")(
    "--compare-model", help="Its model; by default its first chat model."
)
@under("Comparison")(
    "--compare-key-file",
    type=click.Path(path_type=Path),
    help="File with its API key.",
)
@under("Load")(
    "--streams",
    default=STREAMS,
    show_default=True,
    callback=_streams,
    help="Requests at once, one measurement for each number.",
)
@under("Load")(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Requests of each stream, one after another.",
)
@under("Load")(
    "--seconds",
    default=120.0,
    show_default=True,
    type=click.FloatRange(1, 86400),
    help="After so long, a measurement asks nothing more.",
)
@under("Load")(
    "--prompt",
    default=256,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Words of a prompt; about as many tokens.",
)
@under("Load")(
    "--answer",
    default=128,
    show_default=True,
    type=click.IntRange(2, 100_000),
    help="Tokens of an answer.",
)
@under("Output")(
    "--json",
    "json_file",
    type=FILE,
    help="Write the figures to this file; - for standard output.",
)
@under("Output")(
    "--picture",
    "picture_file",
    type=FILE,
    help="Draw them into this file, such as bench.png (needs matplotlib).",
)
@under("Output")("--markdown", is_flag=True, help="Print the table for a document.")
def bench(
    url: str,
    api_key_file: Path | None,
    model: str | None,
    compare: str | None,
    compare_model: str | None,
    compare_key_file: Path | None,
    streams: tuple[int, ...],
    rounds: int,
    seconds: float,
    prompt: int,
    answer: int,
    json_file: Path | None,
    picture_file: Path | None,
    *,
    markdown: bool,
) -> None:
    """Measure how fast an endpoint answers, or two side by side.

    It can be any with OpenAI's API. Prompts are random words, so that no cache knows
    them, and answers have a fixed length. `tok/s` counts tokens written by all streams
    together, from the first request to the last token, `in + out` those of prompts,
    too. `first` is the time to the first token, `token` the time for each further one,
    `answer` that of a whole answer. `memory` is what the engines take, where the
    endpoint tells it.
    """
    # Imported here: they would slow down `--help`.
    from edgeserve.cli.bench.load import Ask
    from edgeserve.cli.bench.run import BenchPlan, NothingMeasured, compared, contestant

    contestants = [contestant(endpoint(url, api_key_file), model)]
    if compare:
        place = endpoint(compare, compare_key_file)
        contestants.append(contestant(place, compare_model))
    ask = Ask(prompt=prompt, answer=answer)
    plan = BenchPlan(streams=streams, rounds=rounds, seconds=seconds, ask=ask)
    for each in contestants:
        click.echo(f"asking {each.target.model} at {each.place.url}", err=True)
    found, complete = compared(contestants, plan)
    if not complete:
        click.echo("stopped; measured until then:", err=True)
    _print(found, markdown=markdown, quiet=str(json_file) == "-")
    if json_file is not None:
        _write(json_file, found)
    if picture_file is not None:
        from edgeserve.cli.bench.picture import picture

        picture(found, picture_file)
    if not complete:
        raise click.Abort
    if all(each.failed == each.requests for each in found):
        raise NothingMeasured("no request was answered; the sentences above say why")


def _print(found: Sequence[Figures], *, markdown: bool, quiet: bool) -> None:
    from edgeserve.cli.bench import figures

    if markdown:
        click.echo(figures.markdown(found))
    elif not quiet:
        print_table(*figures.table(found))
    for each in found:
        for error in each.errors:
            click.echo(f"{each.name}, {each.streams} streams: {error}", err=True)


def _write(path: Path, found: Sequence[Figures]) -> None:
    from edgeserve.runtime.files import replace_file

    text = json.dumps([each.shown() for each in found], indent=1) + "\n"
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        replace_file(path, text.encode())

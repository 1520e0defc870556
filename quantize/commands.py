"""`edgeserve quantize …`: make smaller variants of a model, and measure them."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.examples import examples
from edgeserve.help import Group
from quantize.making import compare, dequantize, run
from quantize.options import (
    MODEL,
    as_json,
    batch_option,
    kv_option,
    read,
    show,
    show_json,
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def quantize() -> None:
    """Make smaller variants of a model, sized and measured."""


@quantize.command(
    epilog=examples(
        (
            "edgeserve quantize inspect model.gguf",
            "what is in it, and how much memory it needs",
        ),
    )
)
@click.argument("file", type=MODEL)
@kv_option
@batch_option
@as_json
def inspect(file: Path, kv_type: str, batch: int, as_json: bool) -> None:
    """Show what a GGUF model is and what serving it takes."""
    from quantize import tables

    facts = read(file)
    table = tables.needs(facts, kv_type, batch)
    if as_json:
        show_json(tables.facts_json(facts, table))
        return
    show(tables.facts_table(facts), tables.misfit(facts), tables.needs_table(table))


@quantize.command(
    epilog=examples(
        ("edgeserve quantize plan model.gguf --machine pi5-8gb", "what fits there"),
        (
            "edgeserve quantize plan model.gguf --memory 4GiB --slots 2",
            "or into so much",
        ),
    )
)
@click.argument("file", type=MODEL)
@click.option("--types", default="", help="Types to look at, separated by commas.")
@click.option(
    "--machine", "machines", multiple=True, help="Such as pi5-8gb; repeatable."
)
@click.option("--memory", multiple=True, help="Free memory, such as 4GiB; repeatable.")
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--context",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Tokens per slot.",
)
@kv_option
@batch_option
@as_json
def plan(
    file: Path,
    types: str,
    machines: tuple[str, ...],
    memory: tuple[str, ...],
    slots: int,
    context: int,
    kv_type: str,
    batch: int,
    as_json: bool,
) -> None:
    """Show which variants of a model fit which memory."""
    from quantize import machines as places
    from quantize import tables
    from quantize.child import require_library
    from quantize.dry import dry_run
    from quantize.plan import Serving, judge
    from quantize.types import USUAL, parse

    kinds = parse(types or USUAL)
    where = places.find(machines, memory)
    facts = read(file)
    require_library()
    serving = Serving(slots=slots, context=context, kv_type=kv_type, ubatch=batch)
    verdicts = judge(facts, [dry_run(facts, each) for each in kinds], where, serving)
    if as_json:
        show_json(tables.plan_json(verdicts, where))
        return
    show(tables.misfit(facts), tables.plan_table(verdicts, where))


for command in (run, compare, dequantize):
    quantize.add_command(command)

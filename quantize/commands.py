"""`edgeserve quantize`: the command group, with `inspect` and `plan`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from edgeserve.help import Group, examples
from edgeserve.terminal import print_table, width, wrapped
from quantize.make_commands import (
    MODEL,
    as_json,
    batch_option,
    compare,
    dequantize,
    kv_option,
    read,
    run,
    show,
    show_json,
)


@click.group(
    cls=Group,
    headings={
        "Look at models": ("inspect", "plan", "compare"),
        "Make variants": ("run", "dequantize", "convert"),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
def quantize() -> None:
    """Make smaller variants of a model, and measure them."""


@quantize.command(
    epilog=examples(
        (
            "edgeserve quantize inspect model.gguf",
            "what the file holds, and how much memory it needs",
        ),
    )
)
@click.argument("file", type=MODEL)
@kv_option
@batch_option
@as_json
def inspect(file: Path, kv_type: str, batch: int, as_json: bool) -> None:
    """Show the facts of a GGUF model and the memory to serve it."""
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
            "what fits into 4 GiB",
        ),
    )
)
@click.argument("file", type=MODEL)
@click.option("--types", default="", help="Types to consider, separated by commas.")
@click.option(
    "--machine", "machines", multiple=True, help="Machine, such as pi5-8gb; repeatable."
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
    """Show which variants of a model fit which memory.

    A dry run of llama.cpp gives the type of each tensor. Without llama-cpp-python,
    built-in rules give it, and a note says so.
    """
    from edgeserve.models.memory import need
    from edgeserve.quantization import USUAL, parse
    from quantize import tables
    from quantize.overrides import dry_run
    from quantize.plan import machines as places
    from quantize.plan.assumed import ASSUMED, assumed
    from quantize.plan.variants import judge
    from quantize.worker.child import library_is_there

    kinds = parse(types or USUAL)
    where = places.find(machines, memory)
    facts = read(file)
    exact = library_is_there()
    planned = [
        dry_run(facts, each) if exact else assumed(facts, each) for each in kinds
    ]
    serving = partial(
        need, facts, slots=slots, context=context, kv_type=kv_type, ubatch=batch
    )
    verdicts = judge(planned, where, lambda size: serving(weights=size))
    note = None if exact else ASSUMED
    if as_json:
        show_json({**tables.plan_json(verdicts, where), "assumed": note})
        return
    print_table(*tables.plan_rows(verdicts, where))
    for sentence in filter(None, (tables.misfit(facts), note)):
        click.echo("\n".join(["", *wrapped(sentence, width())]))


for command in (run, compare, dequantize):
    quantize.add_command(command)

"""`edgeserve advise`: say what this machine, or the fleet, serves best, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeserve.cli.client import endpoint, endpoint_options, understood
from edgeserve.help import Command, examples
from edgeserve.terminal import hanging, print_table, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeserve.cli.advise.choice import AdvisedModel
    from edgeserve.cli.advise.machine import AdvisedMachine
    from edgeserve.cli.advise.report import Advice
    from edgeserve.config.settings import NodeSettings

NODES = "/edgeserve/v1/nodes"
INDENT = 12
"""The column of the values."""


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve advise", "for chat, coding and embeddings on this machine"),
        ("edgeserve advise 14b:Q4", "a size: does it fit, how fast would it be"),
        ("edgeserve advise my-model.gguf", "a file, and variants to make of it"),
        ("edgeserve advise --streams 32", "for many at once, also with vLLM"),
        ("edgeserve advise 70b --fleet", "on each node of the fleet"),
    ),
)
@click.argument("model", required=False)
@click.option(
    "--streams",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Requests that are to be served at once.",
)
@click.option("--fleet", is_flag=True, help="Advise the nodes of the balancer.")
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(
    model: str | None,
    streams: int,
    url: str,
    api_key_file: Path | None,
    *,
    fleet: bool,
    as_json: bool,
) -> None:
    """Say which model and engine suit this machine, and why.

    With expected speeds, the arithmetic behind them, and the command that does it.

    MODEL is a file, a model of the models folder, a published one, or a size such as 7b
    or 14b:Q4. Without it, models that are there and typical ones are ranked by use.
    Nothing is started or fetched. The planner of the node decides what fits and what
    goes to the GPUs; memory counts as free or not as it is now.
    """
    # Imported here: they would slow down `--help`.
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve

    settings = resolve(NodeSettings).settings
    if fleet:
        _fleet(model, streams, endpoint(url, api_key_file).get(NODES), url, as_json)
    else:
        _alone(model, streams, settings, as_json=as_json)


def _alone(
    model: str | None, streams: int, settings: NodeSettings, *, as_json: bool
) -> None:
    from edgeserve.cli.advise import advice
    from edgeserve.cli.advise.machine import this_machine
    from edgeserve.cli.advise.question import asked
    from node.models.library import scan

    here = scan(settings.models_dir).models
    if model is None:
        found = advice.advise(this_machine(settings), here, streams)
    else:
        question = asked(model, here)
        found = advice.explain(*question, this_machine(settings), streams)
    found = replace(
        found,
        models=tuple(map(partial(_as_started, found.machine), found.models)),
        explained=tuple(map(partial(_as_started, found.machine), found.explained)),
    )
    if as_json:
        _json([found])
    else:
        _print(found, explains=model is not None)


def _as_started(machine: AdvisedMachine, model: AdvisedModel) -> AdvisedModel:
    """Let the fit tool of the engine here choose the layers, as the node does."""
    from node.engines.devices import offloaded

    if machine.engine is None or machine.builds or not model.model.path.exists():
        return model
    spec = offloaded(machine.engine, model.planned.spec, machine.settings)
    return replace(model, planned=replace(model.planned, spec=spec))


def _fleet(
    model: str | None, streams: int, nodes: Any, url: str, as_json: bool
) -> None:
    from edgeserve.cli.advise import advice, report
    from edgeserve.cli.advise.machine import fleet_machines
    from edgeserve.cli.advise.question import asked

    with understood(url):
        machines = fleet_machines(nodes)
    question = asked(model, ()) if model else None
    found, plan, sentence = advice.for_fleet(machines, question, streams)
    if as_json:
        _json(found, plan=report.vllm_json(plan), fleet=sentence)
        return
    if not machines:
        click.echo("no nodes yet; `edgeserve node start` starts one", err=True)
        return
    rows = [row for each in found for row in report.rows(each, each.models, named=True)]
    if rows:
        print_table(report.FLEET_HEADS, rows)
    for each in found:
        print_lines(report.commands(each, each.models))
    notes = [f"{a.machine.name}: {a.notes[0]}" for a in found if not a.models]
    print_lines([("", ""), *(("", note) for note in (*notes, sentence))])
    if plan is not None:
        print_lines([("", ""), *report.vllm_lines(plan)])


def _print(found: Advice, *, explains: bool) -> None:
    from edgeserve.cli.advise import report

    print_lines(report.machine_lines(found.machine))
    if not explains and found.models:
        click.echo("")
        print_table(report.HEADS, report.rows(found, found.models))
        others = [each for each in found.models if each not in found.explained]
        print_lines([("", ""), *report.commands(found, others)])
    for each in found.explained:
        print_lines([("", ""), *report.explanation(each, found.machine)])
    if found.vllm is not None:
        print_lines([("", ""), *report.vllm_lines(found.vllm)])
    print_lines(line for note in found.notes for line in (("", ""), ("", note)))


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print named lines; a command stays in one, so that it can be pasted."""
    from edgeserve.cli.advise.report import COMMAND

    for name, text in lines:
        if name == COMMAND:
            click.echo(f"  {text}")
            continue
        line = f"{name:<{INDENT - 1}} {text}" if name else text
        click.echo("\n".join(hanging(line, width(), INDENT if name else 0)))


def _json(found: Sequence[Advice], **more: object) -> None:
    import json

    from edgeserve.cli.advise.report import as_json

    values = as_json(found)
    document = {"machines": values, **more} if more else values[0]
    click.echo(json.dumps(document, indent=2))

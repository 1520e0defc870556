"""`edgeserve simulate`: the command that compares policies on a fleet and a trace."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.help import examples
from edgeserve.terminal import console

FLEET_HELP = (
    "TOML file of [[machine]] tables, or cpu-only, home or six-equal. A machine without"
    " a model serves every model."
)
FLEET_EXAMPLE = """

\b
A fleet file has a table for each kind of machine; speeds are tokens/s:
  [[machine]]
  name = "pi"
  prefill = 40   # at which it reads a prompt
  decode = 6     # at which it writes an answer
  count = 3      # how many there are, by default 1
  slots = 1      # how many it answers at once, by default 1
"""
LOADS = {"light": 0.3, "busy": 0.7, "overload": 1.2}


@click.command(
    epilog=examples(
        ("edgeserve simulate", "the machines of a home, made-up chats, every policy"),
        (
            "edgeserve simulate --fleet mine.toml --trace day.jsonl",
            "what your own clients asked",
        ),
    )
    + FLEET_EXAMPLE
)
@click.option(
    "--fleet", "fleet_name", default="home", show_default=True, help=FLEET_HELP
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSONL file, as `edgeserve balancer start --record` writes it;"
    " by default generated chats.",
)
@click.option(
    "--load",
    type=click.Choice(list(LOADS)),
    default="busy",
    show_default=True,
    help="Load that the generated chats cause.",
)
@click.option(
    "--chats",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Number of generated chats.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of generated chats.")
@click.option(
    "--policy", "names", multiple=True, help="Policy to run. May be repeated."
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the trace here.")
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
def simulate(
    *,
    fleet_name: str,
    trace_file: Path | None,
    load: str,
    chats: int,
    seed: int,
    names: tuple[str, ...],
    save: Path | None,
    as_json_: bool,
) -> None:
    """Try load-balancing policies on a fleet, in virtual time.

    The rows `edgeserve` and `oracle` run the decision code of the balancer; the oracle
    also knows every rate, length and cache. Times are seconds.
    """
    from balancer.simulate.compare import compare, made_up, suited
    from balancer.simulate.fleets import load as load_fleet
    from balancer.simulate.report import as_json, shares, times
    from balancer.telemetry.trace import load as load_trace
    from balancer.telemetry.trace import save as save_trace

    fleet = load_fleet(fleet_name)
    calls = (
        load_trace(trace_file)
        if trace_file
        else made_up(fleet, LOADS[load], chats, seed)
    )
    if trace_file and (note := suited(fleet, calls).note):
        click.echo(f"note: {note}", err=True)
    if save:
        save_trace(save, calls)
    rows = compare(fleet, calls, names, seed)
    if as_json_:
        click.echo(as_json(rows))
        return
    source = trace_file.name if trace_file else f"{load} made-up chats"
    title = f"{len(calls)} requests, {source}, on {fleet_name}; seconds"
    console().print(times(title, rows), shares(fleet, rows), sep="\n")

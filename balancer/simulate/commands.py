"""`edgeserve simulate`: the command that compares policies on a fleet and a trace."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.help import Command, examples, under
from edgeserve.terminal import console

FLEET_HELP = (
    "TOML file of [[machine]] tables, or cpu-only, home or six-equal. A machine without"
    " a model serves every model.  [default: home]  With --autoscale, machines have"
    " several models; one-box and three-boxes are built in. With --energy, machines"
    " have watts; a household is built in."
)
PATTERNS = ("bursts", "diurnal", "alternate", "rounds", "rivals")
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
HOST_EXAMPLE = """
\b
With --autoscale, machines have memory in GiB, and models that can be loaded:
  [[machine]]
  name = "box"
  memory = 8
  count = 2
  [[machine.model]]
  name = "small"
  memory = 3
  load_seconds = 4
  prefill = 200
  decode = 24
"""
ENERGY_EXAMPLE = """
\b
With --energy, machines have watts, and those that may sleep a boot:
  [[machine]]
  name = "gpu"
  prefill = 2200
  decode = 90
  idle = 60      # watts while it waits
  full = 330     # watts while it answers
  boot = 15      # seconds until it is up, by default 0: it never sleeps
"""
LOADS = {"light": 0.3, "busy": 0.7, "overload": 1.2}


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve simulate", "the machines of a home, made-up chats, every policy"),
        (
            "edgeserve simulate --fleet mine.toml --trace day.jsonl",
            "what your own clients asked",
        ),
        (
            "edgeserve simulate --autoscale --traffic bursts",
            "models that are loaded on demand and as replicas",
        ),
    )
    + FLEET_EXAMPLE
    + HOST_EXAMPLE
    + ENERGY_EXAMPLE,
)
@click.option("--fleet", "fleet_name", help=FLEET_HELP)
@under("Requests")(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSONL file, as `edgeserve balancer start --record` writes it;"
    " by default generated chats.",
)
@under("Requests")(
    "--load",
    type=click.Choice(list(LOADS)),
    default="busy",
    show_default=True,
    help="Load that the generated chats cause.",
)
@under("Requests")(
    "--chats",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Number of generated chats.",
)
@under("Requests")(
    "--seed", default=1, show_default=True, help="Seed of generated chats."
)
@click.option(
    "--policy", "names", multiple=True, help="Policy to run. May be repeated."
)
@click.option(
    "--autoscale",
    is_flag=True,
    help="Compare how models are loaded: with autoscaling, only on demand, and by the"
    " rules of llama-swap and Ollama.",
)
@click.option(
    "--energy",
    is_flag=True,
    help="Compare the preferences (--prefer) on a day of chats: watts, times, sleep.",
)
@under("Requests")(
    "--traffic",
    type=click.Choice(PATTERNS),
    help="Made-up traffic for --autoscale; by default each of these, one after the"
    " other.",
)
@under("Output")(
    "--save", type=click.Path(path_type=Path), help="Write the trace here."
)
@under("Output")("--json", "as_json_", is_flag=True, help="Print JSON.")
def simulate(
    *,
    fleet_name: str | None,
    trace_file: Path | None,
    load: str,
    chats: int,
    seed: int,
    names: tuple[str, ...],
    autoscale: bool,
    energy: bool,
    traffic: str | None,
    save: Path | None,
    as_json_: bool,
) -> None:
    """Try load-balancing policies on a fleet, in virtual time.

    The rows `edgeserve` and `oracle` run the decision code of the balancer; the oracle
    also knows every rate, length and cache. Times are seconds.
    """
    if traffic and not autoscale:
        raise click.UsageError("--traffic belongs to --autoscale")
    if energy:
        if autoscale or names or save:
            raise click.UsageError("--energy takes no --autoscale, --policy or --save")
        _energy(fleet_name, trace_file, chats, seed, as_json_)
        return
    fleet_name = fleet_name or ("" if autoscale else "home")
    if autoscale:
        _loading(fleet_name, trace_file, traffic, seed, names, save, as_json_)
    else:
        _routing(fleet_name, trace_file, load, chats, seed, names, save, as_json_)


def _energy(
    fleet_name: str | None,
    trace_file: Path | None,
    chats: int,
    seed: int,
    as_json_: bool,
) -> None:
    """Compare what each preference takes on machines with watts."""
    from balancer.simulate.energy.compare import (
        HOUSEHOLD,
        a_day,
        as_json,
        compare,
        shares,
        times,
        with_watts,
    )
    from balancer.simulate.fleets import load as load_fleet
    from balancer.telemetry.trace import load as load_trace

    fleet = with_watts(load_fleet(fleet_name)) if fleet_name else HOUSEHOLD
    calls = load_trace(trace_file) if trace_file else a_day(chats, seed)
    rows = compare(fleet, calls, seed)
    if as_json_:
        click.echo(as_json(rows))
        return
    title = f"{len(calls)} requests of a day, on {fleet_name or 'a household'}; seconds"
    console().print(times(title, rows), shares(fleet, rows), sep="\n")


def _routing(
    fleet_name: str,
    trace_file: Path | None,
    load: str,
    chats: int,
    seed: int,
    names: tuple[str, ...],
    save: Path | None,
    as_json_: bool,
) -> None:
    """Compare policies on machines that each have one model."""
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


def _loading(
    fleet_name: str,
    trace_file: Path | None,
    traffic: str | None,
    seed: int,
    names: tuple[str, ...],
    save: Path | None,
    as_json_: bool,
) -> None:
    """Compare rules for loading on machines with more models than memory."""
    from balancer.simulate.loading.compare import (
        LoadingFigures,
        as_json,
        compare,
        table,
    )
    from balancer.simulate.loading.traffic import situations
    from balancer.telemetry.trace import save as save_trace

    if save and not (traffic or trace_file):
        raise click.UsageError("--save keeps one trace; choose it by --traffic")
    patterns = (traffic,) if traffic else PATTERNS
    found = dict[str, list[LoadingFigures]]()
    for each in situations(fleet_name, trace_file, patterns, seed):
        if save:
            save_trace(save, each.calls)
        rows = found[each.name] = compare(each.fleet, each.calls, names, seed)
        if not as_json_:
            title = f"{len(each.calls)} requests, {each.name}, on {each.fleet_name}"
            console().print(table(f"{title}; seconds", rows))
    if as_json_:
        click.echo(as_json(found))

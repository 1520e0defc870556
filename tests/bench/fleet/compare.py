"""Compare how balancers route between three real, unequal engines, side by side.

Usage: python -m tests.bench.fleet.compare [--only NAME]... [--load NAME]... [--all]

Each contestant gets engines of its own for each seed, held to 80, 28 and 12 % of a
core: llama.cpp with SmolLM2 and two slots. EdgeServe stands before nodes, with its
defaults; its peers stand before bare engines with the same flags. The loads follow one
another in this order; the cold burst comes before EdgeServe has measured a speed.
Without --load or --all they are the bursts and the chats, on small machines.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click
import psutil

from tests.bench.fleet import figures
from tests.bench.fleet.contest import COLD, Capacity, Load, Run, capacity, contest
from tests.bench.fleet.contestants import CONTESTANTS, OURS, TRACE
from tests.bench.fleet.engines import LAUNCH, SHARES, model
from tests.bench.fleet.loads import ARRIVALS, burst, chats, poisson
from tests.bench.fleet.throttle import best
from tests.bench.proxy import peers
from tests.bench.proxy.compare import machine
from tests.bench.proxy.peers import Missing

NAMES = ("bursts", "chats", *(f"poisson{percent}" for percent in ARRIVALS))
USUAL, MANY = ("bursts", "chats"), 4
"""With so many contests side by side, all loads take less time than those alone."""

CORES_EACH = 2


def loads(names: Sequence[str], able: float) -> dict[str, Load]:
    """Return the loads by the names in tables, in the order in which they run."""
    found: dict[str, Load] = {}
    for name in NAMES:
        if name not in names:
            continue
        if name == "bursts":
            found |= {COLD: burst("cold"), "warm burst": burst("warm")}
        elif name == "chats":
            found["chats"] = chats
        else:
            percent = int(name.removeprefix("poisson"))
            found[f"Poisson {percent} %"] = poisson(percent, able)
    return found


@dataclass(frozen=True)
class Task:
    """One contest, in a process of its own."""

    contestant: str
    seed: int
    names: tuple[str, ...]
    able: float
    folder: Path

    def __call__(self) -> list[Run] | str:
        """Run it; returns a sentence where it cannot be run."""
        [who] = [each for each in CONTESTANTS if each.name == self.contestant]
        _, hold = best()
        chosen = loads(self.names, self.able)
        try:
            return contest(who, chosen, self.seed, self.folder, hold)
        except (Missing, OSError, RuntimeError, psutil.Error) as error:
            # psutil's: an engine has ended, perhaps because its node restarted it.
            return f"{who.name} is left out: {error!r}{_last_words(self.folder)}"


def _last_words(folder: Path) -> str:
    log = folder / "log"
    return f"\n{log.read_text(errors='replace')[-1500:]}" if log.exists() else ""


def run_all(tasks: Sequence[Task], at_a_time: int) -> list[Run]:
    """Run the contests, some of them side by side; none is left behind."""
    runs: list[Run] = []
    with ThreadPoolExecutor(at_a_time) as pool:
        try:
            futures = {pool.submit(_outside, task): task for task in tasks}
            for done in as_completed(futures):
                task, found = futures[done], done.result()
                if isinstance(found, str):
                    print(found, file=sys.stderr)
                    continue
                runs += found
                told = ", ".join(f"{each.load} {each.wall:.0f} s" for each in found)
                print(f"{task.contestant}, seed {task.seed}: {told}", file=sys.stderr)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
    return runs


def _outside(task: Task) -> list[Run] | str:
    """Run it in a process of its own, which can be ended without the others."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_inside, args=(task, there))
    child.start()
    there.close()
    try:
        found: list[Run] | str = here.recv()
    except EOFError:
        found = f"{task.contestant} is left out: its process has ended"
    child.join()
    return found


def _inside(task: Task, there: Connection) -> None:
    end_by_exception()
    there.send(task())


def end_by_exception() -> None:
    """Let SIGTERM and SIGINT give back what was taken, as the end of a block does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: sys.exit(128 + got))


def report(runs: Sequence[Run]) -> tuple[list[figures.Figures], str]:
    """Merge the seeds and render everything."""
    rows: list[figures.Figures] = []
    parts: list[str] = []
    for load in dict.fromkeys(run.load for run in runs):
        here: list[figures.Figures] = []
        for each in CONTESTANTS:
            seeds = [
                figures.figures(run)
                for run in runs
                if run.load == load and run.contestant == each.name
            ]
            here += [figures.merged(seeds)] if seeds else []
        parts.append(f"{load}\n\n{figures.table(here)}")
        rows += here
    if compared := figures.beside(rows):
        told = figures.comparison(compared)
        parts.append(f"How many times better than the best peer\n\n{told}")
    ours = [run for run in runs if run.contestant == OURS]
    if ours:
        told = figures.mistaken(figures.predictions(ours))
        parts.append(f"Error of predicted first-token times, median / p90\n\n{told}")
    return rows, "\n\n".join(parts)


def save(
    out: Path, runs: Sequence[Run], rows: Sequence[figures.Figures], able: Capacity
) -> None:
    """Write all of it, with every request."""
    out.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "machine": machine(),
        "shares": SHARES,
        "slots": LAUNCH.slots,
        "capacity": asdict(able),
        "figures": [asdict(each) for each in rows],
        "beside": [asdict(e) | {"ratio": e.ratio} for e in figures.beside(rows)],
        "runs": [_raw(each) for each in runs],
    }
    out.write_text(json.dumps(told, indent=1))


def _raw(run: Run) -> dict[str, object]:
    answers = [
        {
            **{key: value for key, value in asdict(each).items() if key != "words"},
            "asked": each.asked - run.began,
            "prompt": each.prompt,
            "cached": each.cached,
        }
        for each in run.answers
    ]
    return {**asdict(run), "began": 0.0, "answers": answers}


def keep(out: Path, tasks: Sequence[Task], able: Capacity) -> None:
    """Keep what `edgeserve simulate` needs to play it again: traces and the fleet."""
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    shape = {
        "slots": LAUNCH.slots,
        "batch": LAUNCH.batch,
        "context": LAUNCH.context,
    }
    tables: list[str] = []
    for name, share in SHARES.items():
        rates = {"prefill": able.prefill * share, "decode": able.decode * share}
        lines = [f"{key} = {value:g}" for key, value in (shape | rates).items()]
        tables.append("\n".join(["[[machine]]", f'name = "{name}"', *lines, ""]))
    (folder / "fleet.toml").write_text("\n".join(tables))
    for task in tasks:
        trace = task.folder / TRACE
        if trace.exists():
            shutil.copyfile(trace, folder / f"trace-{task.seed}.jsonl")


@click.command()
@click.option("--only", multiple=True, help="Names, or parts of names. Repeat.")
@click.option("--load", "named", multiple=True, type=click.Choice(NAMES))
@click.option("--all", "every", is_flag=True, help="All loads, as on large machines.")
@click.option("--seeds", default=3, help="Seeds; geometric means count.")
@click.option(
    "--at-a-time",
    default=max(1, (os.cpu_count() or 1) // CORES_EACH),
    help="Contests side by side; each needs 1.3 cores.",
)
@click.option("--json", "out", default="build/bench-fleet.json", type=Path)
def main(
    only: tuple[str, ...],
    named: tuple[str, ...],
    every: bool,
    seeds: int,
    at_a_time: int,
    out: Path,
) -> None:
    """Compare how balancers route between real engines, side by side."""
    end_by_exception()
    peers.install()
    model()
    names = NAMES if every else named or (NAMES if at_a_time >= MANY else USUAL)
    chosen = [e for e in CONTESTANTS if not only or any(o in e.name for o in only)]
    with tempfile.TemporaryDirectory() as name:
        some = any(each.startswith("poisson") for each in names)
        able = capacity(Path(name), requests=some)
        together = able.requests * sum(SHARES.values())
        print(_head(able, together, at_a_time), flush=True)
        tasks = [
            Task(each.name, seed, names, together, Path(name) / f"{each.name}{seed}")
            for seed in range(1, seeds + 1)
            for each in chosen
        ]
        runs = run_all(tasks, at_a_time)
        keep(out, tasks, able)
    rows, told = report(runs)
    print(f"\n{told}")
    save(out, runs, rows, able)


def _head(able: Capacity, together: float, at_a_time: int) -> str:
    way, _ = best()
    carried = f"; together {together:.2f} requests/s" if together else ""
    return (
        f"{machine()}; held back by {way}, {at_a_time} at a time; a core reads"
        f" {able.prefill:.0f} and writes {able.decode:.0f} tokens/s{carried}"
    )


if __name__ == "__main__":
    main()

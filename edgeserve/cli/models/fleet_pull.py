"""`edgeserve pull --to` and `--everywhere`: have nodes pull, and follow them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from edgeserve.cli.client import Endpoint, understood
from edgeserve.cli.models.bars import progress
from edgeserve.errors import CommandError
from edgeserve.models.download import Show
from edgeserve.orders.pulls import OVER, PULLS, FleetPull

LOOK_SECONDS = 0.5
UNSEEN_LOOKS = 20
"""After so many looks a pull that the balancer does not show is taken for lost."""

WHERE_IT_COUNTS = (
    "HF_TOKEN counts where a node runs, from its start on; of the nodes that pull, one"
    " that has it is enough"
)

Json = dict[str, Any]


class NotPulled(CommandError):
    """Some node did not pull the model; the sentences before say why."""


@dataclass
class Followed:
    """One node's pull, as last seen."""

    name: str
    pull: Json | None
    problem: str = ""
    unseen: int = 0
    said: str = ""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to see."""
        return self.pull is None or bool(self.problem) or self.pull["state"] in OVER

    @property
    def failure(self) -> str:
        """Why the model did not come; "" where it did."""
        if self.problem or self.pull is None:
            return self.problem or "it gave no reason"
        if self.pull["state"] == "done":
            return ""
        return str(self.pull["problem"] or self.pull["state"])

    def see(self, rows: Iterable[Json]) -> None:
        """Take what the balancer shows now."""
        assert self.pull is not None  # noqa: S101 - else it is over
        for row in rows:
            if row["pull"]["id"] == self.pull["id"]:
                self.pull, self.unseen = row["pull"], 0
                if row["state"] == "unreachable":
                    self.problem = "it does not answer any longer"
                return
        self.unseen += 1
        if self.unseen > UNSEEN_LOOKS:
            self.problem = "it has left or restarted; the same command goes on"

    def show(self, show: Show) -> None:
        """Draw how far it is."""
        pull = self.pull
        if pull is None:
            return
        if pull["total"] and pull["file"]:
            show(f"{self.name}: {pull['file']}", pull["done"], pull["total"])
        if pull["state"] == "waiting" and pull["step"] not in {"", self.said}:
            self.said = pull["step"]
            show(f"{self.name} waits: {self.said}", 0, 0)


def pull_on_nodes(at: Endpoint, order: FleetPull) -> None:
    """Order it, follow it to the end. Raises NotPulled where some node failed."""
    with understood(at.url):
        started = at.tell(PULLS, msgspec.to_builtins(order))
        nodes = [Followed(row["name"], row["pull"], row["problem"]) for row in started]
        try:
            _follow(at, nodes)
        except KeyboardInterrupt:
            raise CommandError(
                "the nodes go on; the same command shows them again, and with --cancel"
                " it stops them"
            ) from None
        _conclude(nodes)


def _follow(at: Endpoint, nodes: list[Followed]) -> None:
    with progress() as show:
        while True:
            for each in nodes:
                each.show(show)
            if all(each.over for each in nodes):
                return
            time.sleep(LOOK_SECONDS)
            rows = at.get(PULLS)
            for each in nodes:
                if not each.over:
                    each.see(rows)


def _conclude(nodes: list[Followed]) -> None:
    failed = [each for each in nodes if each.failure]
    for each in nodes:
        for note in (each.pull or {}).get("notes", ()):
            click.echo(f"edgeserve: {each.name}: {note}", err=True)
        if each.pull and not each.failure:
            click.echo(f"{each.name}: {each.pull['path']}")
    for each in failed:
        click.echo(f"edgeserve: {each.name}: {each.failure}", err=True)
    if any("HF_TOKEN" in each.failure for each in failed):
        click.echo(f"edgeserve: {WHERE_IT_COUNTS}", err=True)
    if failed:
        raise NotPulled(f"{len(failed)} of {len(nodes)} nodes did not get the model")


def stop(at: Endpoint, order: FleetPull) -> None:
    """Stop the pulls of this source; what has come is kept."""
    with understood(at.url):
        going = [
            row
            for row in at.get(PULLS)
            if row["pull"]["source"] == order.source
            and row["pull"]["state"] not in OVER
            and (not order.nodes or {row["name"], row["node"]} & {*order.nodes})
        ]
        for row in going:
            at.change("DELETE", f"{PULLS}/{row['pull']['id']}")
            click.echo(f"{row['name']}: stopped; what has come is kept")
    if not going:
        raise CommandError(f"no node pulls {order.source} now")

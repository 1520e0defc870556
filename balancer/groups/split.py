"""Split: how many layers of a model each machine of a group computes. Pure.

    seconds per token = Σ layers · seconds of a layer there
                        + Σ workers (round trip + bytes there and back / bytes/s)

The head talks to each worker by itself, so that every boundary passes through it: the
hidden state goes there and comes back, and one answer is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from balancer.groups.search import Part, quickest
from edgeserve.models.memory import PROCESS
from edgeserve.orders.groups import LayeredModel, NodeLink, understand

MARGIN = 0.1
"""Share of the memory that weights and caches leave free: allocations are not exact."""

PIECE = 512
"""Tokens that are computed at once in reading a prompt, as llama.cpp does."""

HIDDEN_COPIES = 16
"""So many hidden states of a piece fit into llama.cpp's compute buffer."""

MASK_BYTES = 8192
"""What else goes to each worker for a token: positions, and which tokens it attends."""

WORTH = 0.03
"""A further machine has to save this share of the time: each is one more to fail."""

MOST_WORKERS = 15

UNMEASURED = NodeLink(round_trip=0.01, bytes_per_second=2e6, wired=False)
"""A link that was not measured counts as a poor wireless one."""

DISK = 300e6
"""Bytes/s at which a head reads a file, where nothing is known."""

START_SECONDS = 3.0
"""What a load takes beside that."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that could be a member. Bytes of `memory`, bytes/s of weights it reads.

    `computing` are operations/s in reading prompts; `head`: it has the file. `rpc` is
    its version of llama.cpp's RPC, `measured` whether it was seen how fast it writes.
    """

    node: str
    name: str
    memory: float
    bytes_per_second: float
    rpc: str
    computing: float = 0.0
    head: bool = False
    worker: bool = True
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model, and for how many tokens in all it needs a cache."""

    model: LayeredModel
    tokens: int

    @property
    def layer(self) -> float:
        """Bytes that a layer takes, with its part of the cache."""
        cached = self.model.kv_bytes * self.tokens / self.model.layers
        return (self.model.layer_bytes + cached) * (1 + MARGIN)

    @property
    def worker(self) -> float:
        """Bytes that a worker needs beside its layers: to compute, and its process."""
        return self._computing + PROCESS

    @property
    def head(self) -> float:
        """Bytes that the head needs beside its layers: what is not split, and more.

        Its output is a number for each word and token of a piece; a word's row takes
        about a byte for each number of the hidden state.
        """
        words = self.model.rest_bytes / max(1, self.model.hidden_bytes / 4)
        computing = max(self._computing, 4 * PIECE * words)
        return self.model.rest_bytes * (1 + MARGIN) + computing + PROCESS

    @property
    def _computing(self) -> float:
        return PIECE * self.model.hidden_bytes * HIDDEN_COPIES

    @property
    def total(self) -> float:
        """Bytes that all members need together, but for what each worker adds."""
        return self.layer * self.model.layers + self.head

    def fitting(self, memory: float, *, head: bool) -> int:
        """Return how many layers fit into a memory."""
        left = memory - (self.head if head else self.worker)
        return max(0, min(self.model.layers, int(left // self.layer)))


@dataclass(frozen=True, kw_only=True)
class Share:
    """A member's part: `layers`, the seconds they and its link take for a token.

    `output` are the seconds of the output layer, which the head has.
    """

    machine: Member
    layers: int
    computes: float
    travels: float = 0.0
    memory: float = 0.0
    output: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Split:
    """A way to serve a model: the head's share, then those of the workers.

    `writes` and `reads` are tokens/s of one stream, `load_seconds` are estimated.
    """

    head: Share
    workers: tuple[Share, ...]
    writes: float
    reads: float
    load_seconds: float
    unmeasured: tuple[str, ...] = field(default=())

    @property
    def shares(self) -> tuple[Share, ...]:
        """All, the head's first."""
        return (self.head, *self.workers)


Links = Mapping[tuple[str, str], NodeLink | None]
"""(head, worker) → the link between the two, as measured; None where there is none."""


def best_split(
    wanted: Wanted, machines: Sequence[Member], links: Links
) -> Split | None:
    """Return the quickest split over all heads, with one worker at least.

    None where the machines do not hold the model.
    """
    found = [
        split
        for head in machines
        if head.head and (split := _of_head(wanted, head, machines, links))
    ]
    return max(found, key=lambda each: each.writes, default=None)


def _of_head(
    wanted: Wanted, head: Member, machines: Sequence[Member], links: Links
) -> Split | None:
    if head.memory < wanted.head:
        return None
    reached = {
        each.node: links.get((head.node, each.node), UNMEASURED)
        for each in machines
        if each.worker and each.node != head.node and understand(head.rpc, each.rpc)
    }
    workers = sorted(
        (
            _Part.of(wanted, each, link)
            for each in machines
            if (link := reached.get(each.node)) is not None
        ),
        key=lambda part: part.even,
    )[:MOST_WORKERS]
    first = _Part.of(wanted, head, None)
    free = quickest(first, workers, wanted.model.layers, 0.0)
    if free is None:
        return None
    price = WORTH * _seconds(first, workers, free)
    layers = quickest(first, workers, wanted.model.layers, price) or free
    return _split(wanted, first, workers, layers, links)


@dataclass(frozen=True, kw_only=True)
class _Part(Part):
    """What a member would add; `link` is None for the head."""

    machine: Member
    link: NodeLink | None

    @classmethod
    def of(cls, wanted: Wanted, machine: Member, link: NodeLink | None) -> _Part:
        """Return what it would add for a model, over this link."""
        return cls(
            machine=machine,
            most=wanted.fitting(machine.memory, head=link is None),
            each=wanted.model.layer_bytes / max(1.0, machine.bytes_per_second),
            fixed=hop(wanted.model, link) if link else 0.0,
            link=link,
        )

    @property
    def even(self) -> float:
        """Seconds a layer where it takes all that it can, its link included."""
        return self.each + self.fixed / self.most if self.most else inf


def hop(model: LayeredModel, link: NodeLink) -> float:
    """Return the seconds of a token on the way to a worker and back."""
    there_and_back = 2 * model.hidden_bytes + MASK_BYTES
    return link.round_trip + there_and_back / max(1.0, link.bytes_per_second)


def _seconds(head: _Part, workers: Sequence[_Part], layers: Sequence[int]) -> float:
    used = zip(workers, layers[1:], strict=True)
    return layers[0] * head.each + sum(p.fixed + n * p.each for p, n in used if n)


def _split(
    wanted: Wanted,
    head: _Part,
    workers: Sequence[_Part],
    layers: Sequence[int],
    links: Links,
) -> Split:
    model = wanted.model
    used = [(p, n) for p, n in zip(workers, layers[1:], strict=True) if n]
    shares = tuple(_share(wanted, part, number) for part, number in used)
    first = _share(wanted, head, layers[0])
    output = model.rest_bytes / 2 / max(1.0, head.machine.bytes_per_second)
    first = replace(first, output=output)
    seconds = output + sum(s.computes + s.travels for s in (first, *shares))
    pair = head.machine.node
    return Split(
        head=first,
        workers=tuple(sorted(shares, key=lambda each: -each.layers)),
        writes=1 / seconds,
        reads=1 / _reading(model, [(head, layers[0]), *used]),
        load_seconds=_loading(model, used),
        unmeasured=tuple(
            s.machine.name for s in shares if (pair, s.machine.node) not in links
        ),
    )


def _share(wanted: Wanted, part: _Part, layers: int) -> Share:
    own = wanted.head if part.link is None else wanted.worker
    return Share(
        machine=part.machine,
        layers=layers,
        computes=layers * part.each,
        travels=part.fixed if layers else 0.0,
        memory=layers * wanted.layer + own,
    )


def _reading(model: LayeredModel, used: Sequence[tuple[_Part, int]]) -> float:
    """Return the seconds to read one token of a long prompt."""
    seconds = 0.0
    for part, layers in used:
        # Two operations for each weight, of about half a byte.
        operations = 4.0 * model.layer_bytes * layers
        # Where nothing is known, a processor reads ten times as fast as it writes.
        rate = part.machine.computing or 40.0 * part.machine.bytes_per_second
        seconds += operations / max(1.0, rate)
        if part.link is not None:
            seconds += part.link.round_trip / PIECE
            seconds += 2 * model.hidden_bytes / max(1.0, part.link.bytes_per_second)
    return max(seconds, 1e-9)


def _loading(model: LayeredModel, used: Sequence[tuple[_Part, int]]) -> float:
    """Return the seconds of the load: the head reads all, and sends what is others'."""
    total = model.layers * model.layer_bytes + model.rest_bytes
    sent = sum(
        layers * model.layer_bytes / max(1.0, part.link.bytes_per_second)
        for part, layers in used
        if part.link is not None
    )
    return START_SECONDS + total / DISK + sent

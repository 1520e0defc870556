"""Search: how many layers each machine takes so that a token takes the least. Pure.

Exact: for each machine in turn, and each number of layers, the best way to place so
many on the machines so far. A window over the numbers that the machine may add makes
that one step for each number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a machine would add: `most` layers, `each` seconds a layer, `fixed` ones."""

    most: int
    each: float
    fixed: float


def quickest(
    head: Part, workers: Sequence[Part], layers: int, price: float
) -> list[int] | None:
    """Return how many layers each takes, the head first: the least seconds of all.

    One worker at least takes a layer; each that does costs `price`. None where they
    do not hold all layers.
    """
    best = [n * head.each if n <= head.most else inf for n in range(layers + 1)]
    best[layers] = inf  # one layer at least is a worker's
    taken = list[list[int]]()
    for part in workers:
        best, took = _with(best, part, price)
        taken.append(took)
    if best[layers] == inf:
        return None
    found, left = list[int](), layers
    for took in reversed(taken):
        found.append(took[left])
        left -= took[left]
    return [left, *reversed(found)]


def _with(
    before: Sequence[float], part: Part, price: float
) -> tuple[list[float], list[int]]:
    """Let one more machine take part: the best seconds for each number of layers."""
    best, took = list(before), [0] * len(before)
    window: deque[tuple[float, int]] = deque()
    for total in range(1, len(before)):
        came = before[total - 1] - (total - 1) * part.each, total - 1
        while window and window[-1][0] >= came[0]:
            window.pop()
        window.append(came)
        while window[0][1] < total - part.most:
            window.popleft()
            if not window:
                break
        if window and window[0][0] < inf:
            seconds = window[0][0] + total * part.each + part.fixed + price
            if seconds < best[total] - 1e-15:
                best[total], took[total] = seconds, total - window[0][1]
    return best, took

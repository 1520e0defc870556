"""Names of nodes: a name that several nodes have gets a part of each one's id. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balancer.fleet.members import Node

SUFFIX = 4
"""Letters of the id after a name that several nodes have; more where they are equal."""


def with_unique_names(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Add a part of its id to each name that several nodes share: `pi#3f2a`."""
    count = Counter(each.name for each in nodes)
    shared = {each.id: each.name for each in nodes if count[each.name] > 1}
    if not shared:
        return tuple(nodes)
    length = SUFFIX
    while length < max(map(len, shared)):
        shown = {_suffixed(name, id_, length) for id_, name in shared.items()}
        if len(shown) == len(shared) and not shown & count.keys():
            break
        length += 1
    return tuple(
        each.called(_suffixed(each.name, each.id, length))
        if each.id in shared
        else each
        for each in nodes
    )


def _suffixed(name: str, id_: str, length: int) -> str:
    """Clones share an id: their address follows instead."""
    id_, _, address = id_.partition("@")
    return f"{name}#{address or id_[:length]}"

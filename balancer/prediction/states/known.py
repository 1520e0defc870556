"""Known states: what nodes have saved for this balancer, by conversation. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from balancer.dialects.prompt import Prompt
from balancer.prediction.prefix_cache import CachedPrefix
from edgeserve.orders.caches import CacheFit, SavedState

MOST = 4096
"""States that are remembered. Nodes drop theirs by themselves."""


@dataclass(eq=False)
class KnownState:
    """A saved state, what it holds, and the ids of the nodes that have it."""

    content: CachedPrefix
    state: SavedState
    nodes: set[str] = field(default_factory=set[str])


class KnownStates:
    """The states, by the last block of what they hold and by what they fit."""

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[bytes, CacheFit], KnownState] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._states)

    def get(self, content: CachedPrefix, fit: CacheFit) -> KnownState | None:
        """Return the state of exactly this content, if one was saved."""
        known = self._states.get((content.prompt.blocks[-1], fit))
        if known is None or abs(known.content.tokens - content.tokens) > 1:
            return None
        return known

    def put(self, known: KnownState) -> None:
        """Remember a state, in place of an earlier one of the same prompt."""
        key = known.content.prompt.blocks[-1], known.state.fit
        self._states[key] = known
        self._states.move_to_end(key)
        if len(self._states) > MOST:
            self._states.popitem(last=False)

    def lost(self, known: KnownState, node: str) -> None:
        """Note that a node does not have it any more."""
        known.nodes.discard(node)
        key = known.content.prompt.blocks[-1], known.state.fit
        if not known.nodes and self._states.get(key) is known:
            del self._states[key]

    def longest(self, prompt: Prompt, fit: CacheFit) -> KnownState | None:
        """Return the state that holds most of a prompt, whole messages of it."""
        blocks = prompt.blocks
        for count in reversed(prompt.messages):
            if (known := self._states.get((blocks[count - 1], fit))) is not None:
                return known
        return None

    def earlier(self, content: CachedPrefix, fit: CacheFit) -> list[KnownState]:
        """Return the states that are a beginning of this content."""
        blocks, messages = content.prompt.blocks, content.prompt.messages
        found = (self._states.get((blocks[count - 1], fit)) for count in messages[:-1])
        return [each for each in found if each is not None]

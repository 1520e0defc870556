"""EdgeServe's policy with states that are saved and moved, in the simulator.

It decides by the same code as a balancer. What a state takes is assumed: `PER_TOKEN`
as with a model of 3 billion parameters, and the speeds that a balancer assumes before
it has measured any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.states.known import KnownState, KnownStates
from balancer.prediction.states.moves import LEAST, MoveSpeeds
from balancer.routing.dispatcher import Assignment
from balancer.simulate.edgeserve_policy import Edge
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Act, Save, Start
from edgeserve.orders.caches import CacheFit, SavedState

PER_TOKEN = 100 * 1024
"""Bytes of a token."""

DISK = 2 * 2**30
"""Bytes of states that a machine keeps."""

FIT = CacheFit(content="", build="", kv_type="f16", flash_attention=True)


class Moving(Edge):
    """Also saves what slots lose, and restores it where that is quicker."""

    def __init__(self, fleet: Sequence[Machine]) -> None:
        super().__init__(fleet)
        self.known, self.speeds = KnownStates(), MoveSpeeds()
        self.kept = dict[str, OrderedDict[bytes, KnownState]]()

    def assign(self, now: float) -> list[Act]:
        """Start calls, with what is saved and restored before each."""
        acts: list[Act] = []
        for act in Edge.assign(self, now):
            if isinstance(act, Start) and act.slot is not None:
                acts += self._prepared(act, self.assignments[act.call.id])
            else:
                acts.append(act)
        return acts

    def _prepared(self, act: Start, assignment: Assignment) -> list[Act]:
        acts: list[Act] = []
        delay, slot = 0.0, assignment.slot
        content, at = assignment.replaced, assignment.engine.name
        if content is not None and self.known.get(content, FIT) is None:
            seconds = self.speeds.save(at).seconds(PER_TOKEN * content.tokens)
            seconds *= len(assignment.engine.load.requests)
            if seconds + LEAST < assignment.estimate.loss:
                acts.append(Save(act.engine, slot, self._keep(at, content)))
                delay += seconds
        state, seconds = self._restored(assignment)
        start = Start(
            act.call, act.engine, act.slot, act.predicted, state, delay + seconds
        )
        return [*acts, start]

    def _restored(self, assignment: Assignment) -> tuple[bytes, float]:
        """Return the state that a slot gets, and the seconds that it takes."""
        prompt, engine = assignment.prompt, assignment.engine
        known = self.known.longest(prompt, FIT)
        if known is None or assignment.estimate.read < LEAST:
            return b"", 0.0
        shared = known.content.shared(len(known.content.prompt.blocks), prompt)
        spared = max(0.0, min(shared, assignment.tokens - 1) - assignment.cached)
        at = engine.name
        source = at if at in known.nodes else min(known.nodes)
        move = self.speeds.planned(
            source=(source, source),
            target=(at, at),
            tokens=shared,
            size=PER_TOKEN * known.content.tokens,
            saves=False,
            read=engine.speed.prefill_seconds(spared, assignment.cached),
            why="",
        )
        if not move.pays:
            return b"", 0.0
        self._kept_at(at, known)
        return known.content.prompt.blocks[-1], move.predicted

    def _keep(self, at: str, content: CachedPrefix) -> bytes:
        """Note a state that a machine saves; return its name."""
        tokens = max(1, round(content.tokens))
        name = content.prompt.blocks[-1]
        state = SavedState(
            name=name.hex(),
            fit=FIT,
            tokens=tokens,
            size=PER_TOKEN * tokens,
            sha256="0" * 64,
            pieces=(),
        )
        known = KnownState(content, state)
        self.known.put(known)
        self._kept_at(at, known)
        return name

    def _kept_at(self, at: str, known: KnownState) -> None:
        """Note that a machine has a state; it drops those that it used longest ago."""
        kept = self.kept.setdefault(at, OrderedDict())
        known.nodes.add(at)
        name = known.content.prompt.blocks[-1]
        kept[name] = known
        kept.move_to_end(name)
        while sum(each.state.size for each in kept.values()) > DISK and len(kept) > 1:
            _, oldest = kept.popitem(last=False)
            self.known.lost(oldest, at)

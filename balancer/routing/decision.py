"""Routing decisions: the types that requests, policies and the queue share. Pure.

The code that relays an answer tells its `Send` what happens. Every call is cheap and
none raises. A claim that ends without `answered` means that the request was cancelled,
refused or lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from balancer.dialects.prompt import EMPTY, Prompt
from balancer.dialects.timings import Timings
from balancer.fleet.engines import (
    EngineCandidate,
    EngineIncarnation,
    seconds_left,
)
from balancer.prediction.cost import CostEstimate
from edgeserve.errors import EdgeserveError
from edgeserve.openai import normal
from edgeserve.served import Continued
from edgeserve.wire import Ability

Resumes = Continued | Literal["", "nodes"]
"""How the rest of an answer is asked for; `nodes`: of nodes only."""


class RoutingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs of an engine.

    `model` is in normal spelling, empty where the caller names none. `ability` is None
    where any engine will do. `slots` is how many it takes (`n`), 0 for work that needs
    no slot. `tokens` is an estimate of the length of the prompt; an engine has already
    refused it for a context of `too_short` tokens. `extra_abilities` are those that the
    engine must have as well. `tried` engines are ruled out until they restart, and so
    are variants below the quantization type `floor`, if one is named. Only a `portable`
    request can be answered by every server that is no node; another by those that know
    its `path`. `resumes`: it is the rest of an answer, for nodes and for servers that
    can go on in that way. `again`: it was sent to an engine before, and comes back.
    Engines that it `left` for faster ones, and those that failed it before they
    restarted, come after all others, until it `relents`: it has waited in vain.

    The rest is for the prediction and rules no engine out: whether text is generated,
    in a slot; the `prompt` as hashes; the `budget` of tokens for the answer; the client
    and its `session`, if it names one; the `deadline` of the first token, by the
    queue's clock. Of waiting requests the highest `priority` is served first.
    """

    model: str
    ability: Ability | None
    slots: int = 1
    tokens: int = 0
    too_short: int = 0
    extra_abilities: frozenset[Ability] = frozenset()
    tried: frozenset[EngineIncarnation] = frozenset()
    floor: str = ""
    generates: bool = True
    prompt: Prompt = EMPTY
    budget: int | None = None
    client: str = ""
    session: str = ""
    deadline: float | None = None
    priority: int = 0
    portable: bool = True
    path: str = ""
    resumes: Resumes = ""
    again: bool = False
    left: frozenset[EngineIncarnation] = frozenset()
    relents: bool = False

    @property
    def kind(self) -> tuple[object, ...]:
        """What decides which engines can serve it; equal kinds wait for the same."""
        return *self.needs(0), self.generates

    def needs(self, shortest: int) -> tuple[object, ...]:
        """What decides which engines can serve it, the shortest context being so long.

        Its length matters only where it may be too long for some engine.
        """
        return (
            self.model, self.ability, self.slots,
            self.tokens if self.tokens > shortest else 0,
            self.too_short, self.extra_abilities, self.tried, self.floor,
            self.portable or self.path, self.resumes, self.left, self.relents,
        )  # fmt: skip

    @property
    def media(self) -> bool:
        """Whether it contains images or audio."""
        return not self.extra_abilities.isdisjoint(("vision", "audio"))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One candidate as the decision saw it; `reason` is None for the chosen one.

    `busy` counts the slots that are taken, and `estimate` is what was predicted, where
    the policy does so.
    """

    candidate: EngineCandidate
    busy: int | None = None
    reason: str | None
    estimate: CostEstimate | None = None


Verdicts = Iterable[Verdict]
"""Computed when they are read."""


class Send(msgspec.Struct, eq=False):
    """Send it to this engine now, in so many slots. Learns nothing of what happens.

    `slot` is the llama.cpp slot that the request should name (`id_slot`), None where
    the engine may choose. `first_seconds` is the predicted time from sending to the
    first token, None where nothing is predicted.
    """

    to: EngineCandidate
    slots: int
    _verdicts: Verdicts = ()
    slot: int | None = None
    first_seconds: float | None = None

    @property
    def verdicts(self) -> Verdicts:
        """Every candidate as the decision saw it."""
        return self._verdicts

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Take in a `prompt_progress`: tokens of the prompt, cached, read so far."""

    def wrote(self) -> None:
        """Note the first token. Later calls change nothing."""

    def answered(self, timings: Timings | None) -> None:
        """Note the end of the answer; `timings` are llama.cpp's, where it gave any."""

    def shown(self) -> dict[str, Any]:
        """Render what was predicted and what happened, if anything was."""
        return {}


@dataclass(frozen=True)
class Wait:
    """An engine can serve it, later."""

    verdicts: Verdicts

    @property
    def loading(self) -> str:
        """The load that it waits for, "" where it waits for something else."""
        loads = [
            each.candidate
            for each in self.verdicts
            if each.candidate.engine.state == "loading" and each.candidate.temporary
        ]
        if not loads:
            return ""
        soonest = min(loads, key=lambda each: seconds_left(each.engine))
        seconds = f"{seconds_left(soonest.engine):.0f} s"
        variant = normal(soonest.engine.variant)
        return f"loading {variant} on {soonest.node}, about {seconds}"


@dataclass(frozen=True)
class Refuse:
    """No engine can serve it, and waiting would not help."""

    error: EdgeserveError
    verdicts: Verdicts = ()


Decision = Send | Wait | Refuse


def shown(verdict: Verdict) -> dict[str, Any]:
    """Render one candidate: chosen or why not, and what was predicted of it."""
    engine, estimate = verdict.candidate.engine, verdict.estimate
    usual = "costs least" if estimate else "fewest busy slots"
    if engine.group:
        usual += f"; a group of {', '.join(each.name for each in engine.group)}"
    return {
        "node": verdict.candidate.node,
        "engine": engine.id,
        "variant": engine.variant,
        "slots": engine.slots,
        "busy": verdict.busy,
        "chosen": verdict.reason is None,
        "reason": verdict.reason or usual,
        "predicted": None if estimate is None else predicted(estimate),
    }


def predicted(estimate: CostEstimate) -> dict[str, Any]:
    """Render predicted seconds; see `CostEstimate`."""
    return {
        "wait_seconds": round(estimate.wait, 4),
        "ahead_seconds": round(estimate.ahead, 4),
        "read_seconds": round(estimate.read, 4),
        "write_seconds": round(estimate.write, 4),
        "first_token_seconds": round(estimate.first, 4),
        "cost_seconds": round(estimate.cost, 4),
        "joules": round(estimate.joules, 2),
        "prompt_tokens": round(estimate.tokens),
        "cached_tokens": round(estimate.cached),
        "exact": estimate.exact,
    }

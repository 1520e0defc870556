"""Routing decisions: the types that requests, policies and the queue share. Pure.

`room.claim` hands a `AttemptObserver` out with the slot (`send.course`), and whoever
carries the answer calls it. Every call is cheap and none raises. Leaving the claim
without `answered` means that the request was cancelled, refused or lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from balancer.dialects.prompt import EMPTY, Prompt
from balancer.dialects.timings import Timings
from balancer.fleet.engines import EngineCandidate, EngineIncarnation
from balancer.prediction.cost import CostEstimate
from edgeserve.errors import EdgeserveError
from edgeserve.wire import Ability


class AttemptObserver(Protocol):
    """One request at one engine, as the wire shows it.

    `slot` is the llama.cpp slot that the request should name (`id_slot`), None where
    the engine may choose. `first_seconds` is the predicted time from sending to the
    first token, None where nothing is predicted.
    """

    slot: int | None
    first_seconds: float | None

    def progress(self, total: int, cached: int, processed: int) -> None:
        """A `prompt_progress` came: tokens of the prompt, found cached, read so far."""
        ...

    def wrote(self) -> None:
        """The first token came. Later calls change nothing."""
        ...

    def answered(self, timings: Timings | None) -> None:
        """The answer is whole; `timings` are llama.cpp's, where it gave any."""
        ...


class Unobserved:
    """For policies that learn nothing."""

    slot: int | None = None
    first_seconds: float | None = None

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Let it pass."""

    def wrote(self) -> None:
        """Let it pass."""

    def answered(self, timings: Timings | None) -> None:
        """Let it pass."""


UNOBSERVED: AttemptObserver = Unobserved()


class RoutingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of an engine.

    `model` is in normal spelling, empty where the caller names none. `ability` is None
    where any engine does. `slots` is how many it takes (`n`), 0 for what is computed
    beside them. `tokens` is a guess at the length of the prompt; a context of
    `too_short` or less has been refused by an engine already. `also` is what its
    engine must be able to do besides. `tried` engines are out until they have started
    anew, and so are variants below the type `floor`, if one is named.

    The rest is for the prediction and rules nobody out: whether text is generated, in
    a slot; the `prompt` as hashes; the `budget` of tokens for the answer; who asks, in
    which `session` if the client names one, and until when, by the room's clock, the
    first token is of use.
    """

    model: str
    ability: Ability | None
    slots: int = 1
    tokens: int = 0
    too_short: int = 0
    also: frozenset[Ability] = frozenset()
    tried: frozenset[EngineIncarnation] = frozenset()
    floor: str = ""
    generates: bool = True
    prompt: Prompt = EMPTY
    budget: int | None = None
    client: str = ""
    session: str = ""
    deadline: float | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """What decides who can serve it: needs of one kind wait for the same slots."""
        return (
            *(self.model, self.ability, self.slots, self.tokens, self.too_short),
            *(self.also, self.tried, self.floor, self.generates),
        )

    @property
    def media(self) -> bool:
        """Whether there is more to it than text."""
        return not self.also.isdisjoint(("vision", "audio"))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One candidate as the decision saw it; `reason` is None for the chosen one.

    `busy` slots are counted, and `parts` predicted, where the policy does so.
    """

    candidate: EngineCandidate
    busy: int | None = None
    reason: str | None
    parts: CostEstimate | None = None


Verdicts = Iterable[Verdict]
"""Made when somebody looks."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send it there, now. Tell `course` what becomes of it."""

    to: EngineCandidate
    slots: int
    verdicts: Verdicts
    course: AttemptObserver = UNOBSERVED


@dataclass(frozen=True)
class Wait:
    """Somebody can do it, later."""

    verdicts: Verdicts


@dataclass(frozen=True)
class Refuse:
    """Nobody can do it, and waiting would not help."""

    error: EdgeserveError
    verdicts: Verdicts = ()


Decision = Send | Wait | Refuse


def shown(verdict: Verdict) -> dict[str, Any]:
    """One candidate: chosen or why not, and what was predicted of it."""
    engine, parts = verdict.candidate.engine, verdict.parts
    usual = "costs least" if parts else "fewest busy slots"
    return {
        "node": verdict.candidate.node,
        "engine": engine.id,
        "variant": engine.variant,
        "slots": engine.slots,
        "busy": verdict.busy,
        "chosen": verdict.reason is None,
        "reason": verdict.reason or usual,
        "predicted": None if parts is None else predicted(parts),
    }


def predicted(parts: CostEstimate) -> dict[str, Any]:
    """Predicted seconds, as `weights` explains them; see `CostEstimate`."""
    return {
        "wait_seconds": round(parts.wait, 4),
        "ahead_seconds": round(parts.ahead, 4),
        "read_seconds": round(parts.read, 4),
        "write_seconds": round(parts.write, 4),
        "first_token_seconds": round(parts.first, 4),
        "cost_seconds": round(parts.cost, 4),
        "prompt_tokens": round(parts.tokens),
        "cached_tokens": round(parts.cached),
        "exact": parts.exact,
    }

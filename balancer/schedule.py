"""Who may serve a request, and the simplest choice among them. Pure.

`sift` applies every filter. `choose` takes the engine with fewest busy slots; the
prediction in seconds (`routing`) takes its place where it has something to predict.
Every candidate gets a verdict, so that each choice can be explained afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from balancer.able import able_to
from balancer.candidates import Candidate, EngineKey, Life
from balancer.course import UNFOLLOWED, Course
from balancer.parts import Parts
from balancer.prefix import EMPTY, Prompt
from edgeserve.errors import EdgeserveError, NoNode
from edgeserve.quality import serves
from edgeserve.wire import Ability


class Need(msgspec.Struct, frozen=True, kw_only=True):
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
    tried: frozenset[Life] = frozenset()
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

    candidate: Candidate
    busy: int | None = None
    reason: str | None
    parts: Parts | None = None


Verdicts = Iterable[Verdict]
"""Made when somebody looks."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send it there, now. Tell `course` what becomes of it."""

    to: Candidate
    slots: int
    verdicts: Verdicts
    course: Course = UNFOLLOWED


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


@dataclass(frozen=True)
class Sifted:
    """Who may serve a request: `open` once a slot is free, the others are `out`.

    `passing` tells whether one that is out may come back by itself soon.
    """

    open: tuple[Candidate, ...]
    out: tuple[Verdict, ...]
    passing: bool


def sift(candidates: Sequence[Candidate], need: Need) -> Sifted | Refuse:
    """Apply every filter but free slots; Refuse where waiting would not help."""
    try:
        able = able_to(candidates, need)
    except EdgeserveError as error:
        return Refuse(error)
    weighed = [(each, *_ruled_out(each, need)) for each in able]
    weighed = _less_worse_ranks(_less_short_contexts(weighed, need))
    weighed = _less_those_that_failed_it(weighed, need)
    chosen = tuple(each for each, why, _ in weighed if why is None)
    out = tuple(
        Verdict(candidate=each, busy=each.engine.busy, reason=why)
        for each, why, _ in weighed
        if why is not None
    )
    passing = any(passing for _, _, passing in weighed)
    if not chosen and not passing:
        return Refuse(_nobody(need, out), out)
    return Sifted(chosen, out, passing)


def choose(
    candidates: Sequence[Candidate], need: Need, busy: Callable[[EngineKey], int]
) -> Decision:
    """Prefer the engine with fewest busy slots, then the smaller share, then the name.

    `busy` counts the slots that are taken on each engine, whoever took them.
    """
    sifted = sift(candidates, need)
    if isinstance(sifted, Refuse):
        return sifted
    counts = [(busy(each.key), each) for each in sifted.open]
    free = [
        (count, each)
        for count, each in counts
        if not need.slots or count + need.slots <= each.engine.slots
    ]
    best = min(free, key=_rank, default=(0, None))[1]
    verdicts = sifted.out + tuple(
        Verdict(candidate=each, busy=count, reason=_reason(each, count, need, best))
        for count, each in counts
    )
    if best is None:
        return Wait(verdicts)
    return Send(best, need.slots, verdicts)


def _rank(counted: tuple[int, Candidate]) -> tuple[int, float, str, str]:
    busy, each = counted
    return busy, busy / each.engine.slots, each.node, each.engine.id


def _reason(
    each: Candidate, busy: int, need: Need, best: Candidate | None
) -> str | None:
    if each is best:
        return None
    if busy + need.slots > each.engine.slots:
        return "every slot is busy"
    return "another has fewer busy slots"


_Weighed = tuple[Candidate, str | None, bool]
"""A candidate, why it is out, and whether that may pass."""


def _ruled_out(candidate: Candidate, need: Need) -> tuple[str | None, bool]:
    if candidate.life in need.tried and candidate.engine.state in {"ready", "busy"}:
        return "tried already", False
    if not serves(candidate.engine.variant, need.floor):
        # Ahead of what may pass: it will be no better once it has loaded.
        return f"{candidate.engine.variant} is not as good as {need.floor}", False
    if candidate.barred:
        return candidate.barred, candidate.passing
    if candidate.engine.context <= need.too_short:
        return "its context is too short", False
    return None, False


def _less_worse_ranks(weighed: list[_Weighed]) -> list[_Weighed]:
    """Leave those alone that failed of late, as long as others have not."""
    best = min((each.rank for each, why, _ in weighed if why is None), default=0)
    return [
        (each, why, passing)
        if why is not None or each.rank == best
        else (each, "it failed a moment ago, and others did not", False)
        for each, why, passing in weighed
    ]


def _less_those_that_failed_it(weighed: list[_Weighed], need: Need) -> list[_Weighed]:
    """Leave those alone that have started anew, where another has not failed it yet."""
    failed = {life[:2] for life in need.tried}
    if not any(why is None and each.key not in failed for each, why, _ in weighed):
        return weighed
    return [
        (each, "it failed this request before it started anew", False)
        if why is None and each.key in failed
        else (each, why, passing)
        for each, why, passing in weighed
    ]


def _less_short_contexts(weighed: list[_Weighed], need: Need) -> list[_Weighed]:
    """Rule out contexts that look too short, unless a longer one exists nowhere.

    The count is a guess; the engine with the longest context gives the exact answer.
    """
    longest = max(each.engine.context for each, _, _ in weighed)
    wanted = min(need.tokens, longest)
    return [
        (each, why, passing)
        if each.engine.context >= wanted
        else (
            each,
            f"its context of {each.engine.context} tokens looks too short",
            False,
        )
        for each, why, passing in weighed
    ]


def _nobody(need: Need, out: Sequence[Verdict]) -> NoNode:
    reasons = "; ".join(
        f"{each.candidate.node}/{each.candidate.engine.variant}: {each.reason}"
        for each in out
    )
    return NoNode(
        f"nobody can serve {need.model or need.ability or 'this'} now: {reasons}"
    )

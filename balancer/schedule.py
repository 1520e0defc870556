"""Which engine a request goes to: fewest busy slots first. Pure.

`choose` is the seam: a policy that predicts seconds takes its place without anything
else changing. It reads no clock and holds nothing; every candidate gets a verdict, so
that each choice can be explained afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from balancer.candidates import Candidate, EngineKey, served
from balancer.course import UNFOLLOWED, Course
from edgeserve.errors import BadRequest, EdgeserveError, NoNode, UnknownModel
from edgeserve.wire import Ability


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request asks of an engine.

    `model` is in normal spelling, empty where the caller names none. `slots` is how
    many it takes (`n`). `tokens` is a guess at the length of the prompt; a context of
    `too_short` or less has been refused by an engine already. `images` go to engines
    that can see, where there are any. `tried` engines are out.
    """

    model: str
    ability: Ability
    slots: int = 1
    tokens: int = 0
    too_short: int = 0
    images: bool = False
    tried: frozenset[EngineKey] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One candidate as the decision saw it; `reason` is None for the chosen one."""

    candidate: Candidate
    busy: int
    reason: str | None


@dataclass(frozen=True)
class Send:
    """Send it there, now. Tell `course` what becomes of it."""

    to: Candidate
    slots: int
    verdicts: tuple[Verdict, ...]
    course: Course = UNFOLLOWED


@dataclass(frozen=True)
class Wait:
    """Somebody can do it, later."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Refuse:
    """Nobody can do it, and waiting would not help."""

    error: EdgeserveError
    verdicts: tuple[Verdict, ...] = ()


Decision = Send | Wait | Refuse


def choose(
    candidates: Sequence[Candidate], need: Need, busy: Callable[[EngineKey], int]
) -> Decision:
    """Prefer the engine with fewest busy slots, then the smaller share, then the name.

    `busy` counts the slots that are taken on each engine, whoever took them.
    """
    able = _able(candidates, need)
    if isinstance(able, Refuse):
        return able
    weighed = [_Weighed(each, need, busy(each.key)) for each in able]
    _drop_short_contexts(weighed, need)
    free = [each for each in weighed if each.out is None]
    if free:
        best = min(free, key=_Weighed.rank)
        return Send(best.candidate, best.slots, _verdicts(weighed, best))
    verdicts = _verdicts(weighed, None)
    if any(each.passing for each in weighed):
        return Wait(verdicts)
    return Refuse(_nobody(need, weighed), verdicts)


@dataclass
class _Weighed:
    """A candidate that could serve the request in principle."""

    candidate: Candidate
    need: Need
    busy: int
    out: str | None = field(init=False)
    passing: bool = field(init=False)

    def __post_init__(self) -> None:
        engine = self.candidate.engine
        # More than it has is the engine's own error to explain.
        self.slots = min(self.need.slots, engine.slots)
        self.out, self.passing = self._weigh()

    def _weigh(self) -> tuple[str | None, bool]:
        if self.candidate.key in self.need.tried:
            return "tried already", False
        if self.candidate.barred:
            return self.candidate.barred, self.candidate.passing
        if self.candidate.engine.context <= self.need.too_short:
            return "its context is too short", False
        if self.busy + self.slots > self.candidate.engine.slots:
            return "every slot is busy", True
        return None, False

    def rank(self) -> tuple[int, float, str, str]:
        engine = self.candidate.engine
        return self.busy, self.busy / engine.slots, self.candidate.node, engine.id


def _able(candidates: Sequence[Candidate], need: Need) -> list[Candidate] | Refuse:
    if not candidates:
        return Refuse(
            NoNode("no node has been found yet; `edgeserve nodes` shows what was seen")
        )
    named = [each for each in candidates if not need.model or each.serves(need.model)]
    if not named:
        names = [each.name for each in served(candidates)]
        return Refuse(UnknownModel(need.model, names))
    able = [each for each in named if need.ability in each.engine.abilities]
    if not able:
        return Refuse(_unable(candidates, need))
    if need.images:
        able = [each for each in able if "vision" in each.engine.abilities] or able
    models = {each.engine.model for each in able}
    if not need.model and len(models) > 1:
        choice = ", ".join(sorted(models))
        return Refuse(
            BadRequest(f"name a `model`; {need.ability} is served by {choice}")
        )
    return able


def _unable(candidates: Sequence[Candidate], need: Need) -> BadRequest:
    able = sorted(
        {c.engine.model for c in candidates if need.ability in c.engine.abilities}
    )
    there = f"ask {', '.join(able)}" if able else "no model in the fleet does"
    return BadRequest(
        f"{need.model or 'the model'} does not do {need.ability}; {there}"
    )


def _drop_short_contexts(weighed: Sequence[_Weighed], need: Need) -> None:
    """Rule out contexts that look too short, unless a longer one exists nowhere.

    The count is a guess; the engine with the longest context gives the exact answer.
    """
    longest = max(each.candidate.engine.context for each in weighed)
    wanted = min(need.tokens, longest)
    for each in weighed:
        context = each.candidate.engine.context
        if context < wanted:
            each.out = f"its context of {context} tokens looks too short"
            each.passing = False


def _verdicts(
    weighed: Sequence[_Weighed], best: _Weighed | None
) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(
            candidate=each.candidate,
            busy=each.busy,
            reason=None if each is best else each.out or "another has fewer busy slots",
        )
        for each in weighed
    )


def _nobody(need: Need, weighed: Sequence[_Weighed]) -> NoNode:
    reasons = "; ".join(
        f"{each.candidate.node}/{each.candidate.engine.variant}: {each.out}"
        for each in weighed
    )
    return NoNode(f"nobody can serve {need.model or need.ability} now: {reasons}")

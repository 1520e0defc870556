"""Which variant of a model a node serves: good enough, and fast enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeserve.config import NodeSettings
from edgeserve.quality import at_least, loss


@dataclass(frozen=True, kw_only=True)
class Option:
    """A variant as this node could serve it.

    `speed` is the expected tokens/s of one stream; `whole` says that nothing had to be
    given up for it to fit; `bits` are per weight; `divergence` is its measured loss
    against the base, in nats, None where nobody compared them.
    """

    variant: str
    label: str
    speed: float
    whole: bool
    bits: float
    divergence: float | None = None


@dataclass(frozen=True)
class Choice:
    """The variant to serve and why; `short` says that it is slower than was asked."""

    variant: str
    why: str
    short: bool = False


def choose(options: Sequence[Option], settings: NodeSettings) -> Choice | str:
    """Choose among variants that can run, or say why none will do.

    With a speed wanted, the best quality that reaches it; with only a quality wanted,
    the fastest that has it; with neither, the best quality that fits whole.
    """
    good = [each for each in options if _good(each, settings.min_quality)]
    if not good:
        there = ", ".join(each.variant for each in options)
        return f"none is as good as {settings.min_quality}; there is {there}"
    if settings.min_speed:
        return _fast_enough(good, settings.min_speed, _losses(options))
    if settings.min_quality:
        floor = f"of quality {settings.min_quality} or better"
        return Choice(_fastest(good).variant, f"the fastest {floor}")
    whole = [each for each in good if each.whole]
    if not whole:
        return Choice(_fastest(good).variant, "the fastest, as none fits whole")
    best = _best(whole, _losses(options))
    return Choice(best.variant, "the best quality that fits")


def _fast_enough(
    good: Sequence[Option], wanted: float, losses: dict[str, float]
) -> Choice:
    fast = [each for each in good if each.speed >= wanted]
    if not fast:
        nearest = _fastest(good)
        why = f"the fastest, {nearest.speed:.3g} of the {wanted:g} tokens/s wanted"
        return Choice(nearest.variant, why, short=True)
    best = _best([each for each in fast if each.whole] or fast, losses)
    return Choice(best.variant, f"the best quality that reaches {wanted:g} tokens/s")


def _good(option: Option, floor: str) -> bool:
    """Whether an option meets a floor: a type's name, or a bound on divergence."""
    bound = bound_of(floor)
    if bound is None:
        return not floor or at_least(option.label, floor)
    known = option.divergence if option.divergence is not None else loss(option.label)
    return known is not None and known <= bound


def bound_of(floor: str) -> float | None:
    """Return the KL divergence that a floor names; None where it names a type."""
    try:
        return float(floor)
    except ValueError:
        return None


def _losses(options: Iterable[Option]) -> dict[str, float]:
    """Return what each loses: as measured, if all were, else as their types do."""
    measured = {each.variant: each.divergence for each in options}
    known = {name: value for name, value in measured.items() if value is not None}
    if len(known) == len(measured):
        return known
    typical = {each.variant: loss(each.label) for each in options}
    return {k: math.inf if v is None else v for k, v in typical.items()}


def _best(options: Iterable[Option], losses: dict[str, float]) -> Option:
    return min(options, key=lambda each: (losses[each.variant], -each.bits))


def _fastest(options: Iterable[Option]) -> Option:
    return max(options, key=lambda each: each.speed)

"""Choice among the variants of a model: the one that suits this machine best."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.models.comparison import Comparison
from edgeserve.models.naming import stem
from edgeserve.quantization import at_least, loss
from edgeserve.runtime.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Option:
    """A variant as this node could serve it.

    `speed` is the expected tokens/s of one stream; `whole`: it fits without any
    reduction; `bits` are per weight; `divergence` is its measured loss against the
    base, in nats, None where it was not measured.
    """

    variant: str
    label: str
    speed: float
    whole: bool
    bits: float
    divergence: float | None = None


@dataclass(frozen=True)
class Choice:
    """The variant to serve and why; `short`: it is slower than requested."""

    variant: str
    why: str
    short: bool = False


def choose(options: Sequence[Option], settings: NodeSettings) -> Choice | str:
    """Choose among variants that can run, or return why none is good enough.

    With a minimum speed, the best quality that reaches it; with only a minimum quality,
    the fastest that reaches it; with neither, the best quality that fits whole.
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
    """Whether an option reaches a floor: a type's name, or a divergence."""
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
    """Return each variant's loss: measured, if all were, else typical of its type."""
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


def divergence(file: Path) -> float | None:
    """Return a file's mean KL divergence from its base, in nats, where it was measured.

    A file of another size than the measured one is another file.
    """
    record = file.with_name(f"{stem(file)}.compare.json")
    try:
        found = read_json(record, Comparison)
        size = file.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("ignoring %s: %s; compare again", record, in_words(error))
        return None
    if (found.base.file, found.base.bytes) == (file.name, size):
        return 0.0
    for each in found.variants:
        if (each.file, each.bytes) == (file.name, size):
            return each.quality.divergence[0] if each.quality.divergence else None
    return None

"""Draft models: small models that can guess ahead for a larger one.

The large model checks several guesses in one computation, which reads its weights only
once; its answers stay its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import BrokenModel
from edgeserve.models.vocabulary import MOST_PADDING, Vocabulary, vocabulary_of
from node.models.library import Model

MOST_SHARE = 1 / 3
"""Of the larger model's weights: a slower guess than this cannot pay."""


def drafts_for(model: Model, others: Iterable[Model]) -> dict[str, ModelFacts]:
    """Return the models that can draft for one, by variant, the smallest first.

    Reads the vocabularies of those that are small enough.
    """
    small = sorted(_small(model, others), key=lambda each: each.facts.weight_bytes)
    wanted = _read(model) if small else None
    if wanted is None:
        return {}
    return {
        each.variant: each.facts
        for each in small
        if (found := _read(each)) is not None and found.matches(wanted)
    }


def _small(model: Model, others: Iterable[Model]) -> Iterator[Model]:
    """Yield what may be worth a look, by what is known without reading files."""
    if model.role != "generate" or model.projector:
        return
    for each in others:
        padding = abs(each.facts.vocabulary - model.facts.vocabulary)
        light = each.facts.weight_bytes <= MOST_SHARE * model.facts.weight_bytes
        if each.role == "generate" and light and padding <= MOST_PADDING:
            yield each


def _read(model: Model) -> Vocabulary | None:
    try:
        return vocabulary_of(model.path)
    except BrokenModel:
        return None

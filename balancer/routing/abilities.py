"""Abilities: which engines have the abilities that a request needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from balancer.fleet.catalog import catalog, entries
from balancer.fleet.engines import EngineCandidate
from edgeserve.errors import BadRequest, NoneAsGood, NoNode, UnknownModel
from edgeserve.quantization import serves
from edgeserve.servers.profiles import profile_of
from edgeserve.wire import Ability

_DOING: dict[Ability, str] = {
    "vision": "look at images",
    "audio": "listen to audio",
    "tools": "be made to call a tool, as its chat template knows none",
}


class Asking(Protocol):
    """What a request needs; see `RoutingRequest`."""

    @property
    def model(self) -> str:
        """Its model in normal spelling, empty where none is named."""
        ...

    @property
    def ability(self) -> Ability | None:
        """The ability that its route needs, if any."""
        ...

    @property
    def extra_abilities(self) -> frozenset[Ability]:
        """Further abilities that it needs."""
        ...

    @property
    def slots(self) -> int:
        """How many answers it wants at once."""
        ...

    @property
    def portable(self) -> bool:
        """Whether every server that is no node can answer it."""
        ...

    @property
    def path(self) -> str:
        """Its route."""
        ...

    @property
    def floor(self) -> str:
        """The lowest quantization type that it accepts."""
        ...


def able_to(
    candidates: Sequence[EngineCandidate], wanted: Asking
) -> list[EngineCandidate]:
    """Return them; where there are none, raise the error for the client."""
    if not candidates:
        # Perhaps there are nodes, and none of them has a model.
        raise NoNode(
            "no node with a model has been found yet; `edgeserve nodes` shows what was"
            " seen, and `edgeserve pull MODEL --everywhere` gives nodes a model"
        )
    named = [
        each for each in candidates if not wanted.model or each.serves(wanted.model)
    ]
    if not named:
        known = [each.name for each in entries(catalog(candidates))]
        raise UnknownModel(wanted.model, known)
    named = _portable(named, wanted)
    able = _wide_enough(_doing_it(candidates, named, wanted), wanted)
    if not any(serves(each.engine.variant, wanted.floor) for each in able):
        variants = sorted({each.engine.variant for each in able})
        raise NoneAsGood(wanted.model, wanted.floor, variants)
    return able if wanted.model else _of_one_model(able)


def _portable(named: list[EngineCandidate], wanted: Asking) -> list[EngineCandidate]:
    """Rule out servers that are no nodes, where they cannot answer."""
    if wanted.portable:
        return named
    able = [
        each
        for each in named
        if each.engine.kind != "server" or profile_of(each.engine).takes(wanted.path)
    ]
    if not able:
        kinds = sorted({each.engine.build for each in named})
        raise BadRequest(
            f"only llama.cpp can answer this, and {_called(wanted)} is served by"
            f" {', '.join(kinds)}; ask /v1/chat/completions, /v1/completions or"
            " /v1/embeddings, without llama.cpp's own fields, or give a node a GGUF of"
            " the model"
        )
    return able


GOING = frozenset(("absent", "leaving"))


def _of_one_model(able: list[EngineCandidate]) -> list[EngineCandidate]:
    """Return the engines of the only model; those that are loaded go before others."""
    loaded = [each for each in able if each.engine.state not in GOING]
    models = {each.engine.model for each in loaded or able}
    if len(models) > 1:
        choice = ", ".join(sorted(models))
        raise BadRequest(f"name a `model`, one of {choice}")
    return [each for each in able if each.engine.model in models]


def _doing_it(
    candidates: Iterable[EngineCandidate],
    named: Iterable[EngineCandidate],
    wanted: Asking,
) -> list[EngineCandidate]:
    needs = frozenset[Ability]((wanted.ability,) if wanted.ability else ())
    able = [each for each in named if needs.issubset(each.engine.abilities)]
    if not able:
        there = _who(needs, candidates, "no model in the fleet does")
        raise BadRequest(f"{_called(wanted)} does not do {wanted.ability}; {there}")
    if not wanted.extra_abilities:
        return able
    able = [
        each for each in able if wanted.extra_abilities.issubset(each.engine.abilities)
    ]
    if not able:
        there = _who(
            needs | wanted.extra_abilities, candidates, "no model in the fleet can"
        )
        doing = " and ".join(
            _DOING.get(each, each) for each in sorted(wanted.extra_abilities)
        )
        raise BadRequest(f"{_called(wanted)} cannot {doing}; {there}")
    return able


def _who(
    wanted: frozenset[Ability], candidates: Iterable[EngineCandidate], otherwise: str
) -> str:
    models = {c.engine.model for c in candidates if wanted <= {*c.engine.abilities}}
    return f"ask {', '.join(sorted(models))}" if models else otherwise


def _called(wanted: Asking) -> str:
    return wanted.model or "the model"


def _wide_enough(able: list[EngineCandidate], wanted: Asking) -> list[EngineCandidate]:
    """Keep the engines with slots for all of `n` answers at once."""
    if wanted.slots <= 1:
        return able
    wide = [each for each in able if each.engine.slots >= wanted.slots]
    if not wide:
        most = max(each.engine.slots for each in able)
        raise BadRequest(
            f"`n` is {wanted.slots}, but no engine of {_called(wanted)} gives more than"
            f" {most} answers at once; ask for {most} at most, or several times"
        )
    return wide

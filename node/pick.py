"""Which of the node's engines a request is for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeserve.errors import BadRequest, NoNode, UnknownModel
from edgeserve.openai import names_of, normal
from edgeserve.wire import Ability, EngineReport

STANDING = ("ready", "busy", "loading", "stuck", "failed", "quarantined")
"""States, the most promising first."""


def by_name(
    engines: Sequence[EngineReport], name: str, needs: Ability | None
) -> EngineReport:
    """Return the engine whose id, variant or model `name` is; "" means the only one.

    Among several, the one with the largest share of idle slots. Raises UnknownModel, or
    BadRequest where the model cannot do what the route `needs`, if anything.
    """
    if not engines:
        raise NoNode("this node serves no model")
    if not name:
        return _only(engines, needs)
    wanted = normal(name)
    named = [each for each in engines if name == each.id or wanted in names_of(each)]
    if not named:
        raise UnknownModel(name, known(engines))
    able = [each for each in named if _can(each, needs)]
    if not able:
        can = sorted({ability for each in named for ability in each.abilities})
        raise BadRequest(f"{name!r} is served for {', '.join(can)}, not for {needs}")
    return min(able, key=_standing)


def known(engines: Iterable[EngineReport]) -> list[str]:
    """List the models and variants, as clients may name them."""
    return sorted({name for each in engines for name in (each.model, each.variant)})


def _only(engines: Sequence[EngineReport], needs: Ability | None) -> EngineReport:
    able = [each for each in engines if _can(each, needs)]
    models = sorted({each.model for each in able})
    if not models:
        raise BadRequest(f"no model here is served for {needs}")
    if len(models) > 1:
        raise BadRequest(f"name the `model`, one of {', '.join(models)}")
    return min(able, key=_standing)


def _can(engine: EngineReport, needs: Ability | None) -> bool:
    return needs is None or needs in engine.abilities


def _standing(engine: EngineReport) -> tuple[int, float, str]:
    share = engine.busy / engine.slots if engine.slots else 1.0
    return STANDING.index(engine.state), share, engine.id

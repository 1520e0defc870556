"""Sources: what an order of a pull means."""

from __future__ import annotations

from edgeserve.errors import BadRequest
from edgeserve.models.download import CATALOG
from edgeserve.models.pull.plan import at_revision
from edgeserve.models.pull.sources import LocalFile, Source, UnknownSource, parse
from edgeserve.orders.pulls import PullOrder


def check(order: PullOrder) -> None:
    """Raise BadRequest where an order cannot be followed."""
    source = source_of(order)
    if isinstance(source, LocalFile):
        raise BadRequest(
            f"{order.source} is a path of one machine; other machines get a model by"
            " its name once a node has it"
        )
    if source is not None:
        try:
            at_revision(source, order.revision)
        except UnknownSource as error:
            raise BadRequest(str(error)) from error


def source_of(order: PullOrder) -> Source | None:
    """Return the source; None for a name, of a built-in model or a peer's."""
    if order.source.lower() in CATALOG:
        return None
    try:
        return parse(order.source, exists=False)
    except UnknownSource as error:
        if "/" in order.source or "\\" in order.source:
            raise BadRequest(str(error)) from error
        return None

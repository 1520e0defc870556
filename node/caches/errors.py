"""Refusals: why a state is not saved, not taken or not put into a slot."""

from __future__ import annotations

from edgeserve.errors import EdgeserveError


class CacheRefusal(EdgeserveError):
    """A state cannot be saved or taken; the sentence says why."""

    status = 409
    code = "state_refused"
    kind = "invalid_request_error"


class StaleState(CacheRefusal):
    """The slot does not hold what was asked for any more."""

    code = "state_stale"


class ForeignState(CacheRefusal):
    """The state is of another model, build or type of keys and values."""

    code = "state_foreign"


class DamagedState(CacheRefusal):
    """The file is not what was saved. It has been removed."""

    code = "state_damaged"


class NoSuchState(CacheRefusal):
    """This node has no such state, and no peer sends it."""

    status = 404
    code = "state_not_found"


class NoRoom(CacheRefusal):
    """The disk, or the part of it that states may take, is too small."""

    status = 507
    code = "no_room"

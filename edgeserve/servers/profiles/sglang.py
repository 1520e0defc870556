"""SGLang profile. Pure.

`/v1/loads` has limits and load of each of its ranks. `/health` is not asked: it
generates a token.
"""

from __future__ import annotations

from edgeserve.servers.profiles.base import (
    NOTHING,
    OPEN_MESSAGE,
    Json,
    Profile,
    Replies,
    owners,
    whole,
)
from edgeserve.servers.profiles.translation import OF_SGLANG

LOADS = "/v1/loads"


class SGLang(Profile):
    """SGLang; what older versions do not tell is guessed."""

    kind = "sglang"
    looks = (LOADS,)
    width = 64
    cache = "shared"
    continues = OPEN_MESSAGE
    translates = OF_SGLANG

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        return "sglang" in owners(replies)

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`."""
        return sum(whole(each.get("max_running_requests")) for each in _ranks(replies))

    def running(self, replies: Replies) -> int:
        """See `Profile.running`."""
        names = ("num_running_reqs", "num_waiting_reqs")
        return sum(whole(each.get(n)) for each in _ranks(replies) for n in names)

    def waiting(self, replies: Replies) -> int:
        """See `Profile.waiting`."""
        return sum(whole(each.get("num_waiting_reqs")) for each in _ranks(replies))


def _ranks(replies: Replies) -> list[Json]:
    found = replies.get(LOADS, NOTHING).json.get("loads")
    entries = found if isinstance(found, list) else []
    return [each for each in entries if isinstance(each, dict)]

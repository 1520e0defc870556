"""TGI profile: Hugging Face's text-generation-inference. Pure.

`max_concurrent_requests` limits admission, not the batch: it is an upper bound.
"""

from __future__ import annotations

from edgeserve.servers.profiles.base import (
    MOST_WIDTH,
    NOTHING,
    Profile,
    Replies,
    ServedModel,
    gauge,
    is_id,
    unwell,
    whole,
)
from edgeserve.servers.profiles.translation import OF_TGI

INFO, HEALTH, METRICS = "/info", "/health", "/metrics"


class TGI(Profile):
    """TGI serves one model, in chats and completions."""

    kind = "tgi"
    asks = (INFO,)
    looks = (INFO, HEALTH, METRICS)
    width = 32
    cache = "shared"
    renames = {"max_completion_tokens": "max_tokens"}  # noqa: RUF012 - a Mapping
    translates = OF_TGI

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        info = replies.get(INFO, NOTHING).json
        limits = ("max_concurrent_requests", "max_total_tokens")
        return is_id(info.get("model_id")) and all(whole(info.get(n)) for n in limits)

    def models(self, replies: Replies) -> tuple[ServedModel, ...]:
        """See `Profile.models`."""
        context = whole(replies.get(INFO, NOTHING).json.get("max_total_tokens"))
        return tuple(
            ServedModel(id=each.id, context=context) for each in super().models(replies)
        )

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(HEALTH, NOTHING), HEALTH)

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`."""
        info = replies.get(INFO, NOTHING).json
        most = whole(info.get("max_concurrent_requests"))
        return most if most < self.width else 0

    def running(self, replies: Replies) -> int:
        """See `Profile.running`."""
        names = ("tgi_batch_current_size", "tgi_queue_size")
        return gauge(replies.get(METRICS, NOTHING), *names)

    def waiting(self, replies: Replies) -> int:
        """See `Profile.waiting`."""
        return gauge(replies.get(METRICS, NOTHING), "tgi_queue_size")

    def most_width(self, replies: Replies) -> int:
        """See `Profile.most_width`."""
        info = replies.get(INFO, NOTHING).json
        return min(whole(info.get("max_concurrent_requests")) or MOST_WIDTH, MOST_WIDTH)

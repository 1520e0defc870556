"""vLLM profile. Pure.

Its largest batch (`--max-num-seqs`) cannot be read; `/metrics` has all requests that it
runs and that wait, also where it wants a key. `/health` alone shows a dead engine.
"""

from __future__ import annotations

from edgeserve.served import CacheKind
from edgeserve.servers.profiles.base import (
    MOST_WIDTH,
    NOTHING,
    OPEN_MESSAGE,
    Profile,
    Replies,
    gauge,
    label,
    owners,
    unwell,
)
from edgeserve.servers.profiles.translation import OF_VLLM

HEALTH, METRICS = "/health", "/metrics"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
CACHE = "vllm:cache_config_info"

BLOCK = 16
"""Tokens of a block, unless the server tells it."""


class VLLM(Profile):
    """vLLM; its batches are larger than a guess should be for others."""

    kind = "vllm"
    looks = (HEALTH, METRICS)
    width = 64
    cache = "shared"
    continues = OPEN_MESSAGE
    translates = OF_VLLM

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        return "vllm" in owners(replies)

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(HEALTH, NOTHING), HEALTH)

    def running(self, replies: Replies) -> int:
        """See `Profile.running`."""
        return gauge(replies.get(METRICS, NOTHING), RUNNING, WAITING)

    def waiting(self, replies: Replies) -> int:
        """See `Profile.waiting`."""
        return gauge(replies.get(METRICS, NOTHING), WAITING)

    def most_width(self, replies: Replies) -> int:
        """See `Profile.most_width`: a request has at least one block of its memory."""
        reply = replies.get(METRICS, NOTHING)
        blocks = label(reply, CACHE, "num_gpu_blocks")
        return min(blocks or MOST_WIDTH, MOST_WIDTH)

    def cached(self, replies: Replies) -> CacheKind:
        """See `Profile.cached`."""
        off = 'enable_prefix_caching="False"' in replies.get(METRICS, NOTHING).text
        return "unknown" if off else self.cache

    def block(self, replies: Replies) -> int:
        """See `Profile.block`."""
        return label(replies.get(METRICS, NOTHING), CACHE, "block_size") or BLOCK

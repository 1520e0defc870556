"""vLLM profile. Pure.

Its largest batch (`--max-num-seqs`) cannot be read; `/metrics` has all requests that it
runs and that wait, also where it wants a key. `/health` alone shows a dead engine.
"""

from __future__ import annotations

from edgeserve.servers.profiles.base import (
    NOTHING,
    OPEN_MESSAGE,
    Profile,
    Replies,
    gauge,
    owners,
    unwell,
)
from edgeserve.servers.profiles.translation import OF_VLLM

HEALTH, METRICS = "/health", "/metrics"


class VLLM(Profile):
    """vLLM; its batches are larger than a guess should be for others."""

    kind = "vllm"
    looks = (HEALTH, METRICS)
    width = 64
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
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        return gauge(replies.get(METRICS, NOTHING), *names)

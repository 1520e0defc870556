"""TensorRT-LLM profile: `trtllm-serve`. Pure.

Its `/metrics` is a list that reading empties, for all other readers, too: it is
never asked. `/prometheus/metrics` is there with `return_perf_metrics` only.
"""

from __future__ import annotations

from edgeserve.servers.profiles.base import (
    NOTHING,
    Profile,
    Replies,
    gauge,
    owners,
    unwell,
)

HEALTH, PROMETHEUS = "/health", "/prometheus/metrics"


class TensorRTLLM(Profile):
    """TensorRT-LLM; it may tell its largest batch, and what it runs and holds."""

    kind = "tensorrt-llm"
    looks = (HEALTH, PROMETHEUS)
    width = 64

    def recognises(self, replies: Replies) -> bool:
        """See `Profile.recognises`."""
        return "tensorrt_llm" in owners(replies)

    def problem(self, replies: Replies) -> str:
        """See `Profile.problem`."""
        return unwell(replies.get(HEALTH, NOTHING), HEALTH)

    def read_width(self, replies: Replies) -> int:
        """See `Profile.read_width`."""
        return gauge(replies.get(PROMETHEUS, NOTHING), "trtllm_max_batch_size_static")

    def running(self, replies: Replies) -> int:
        """See `Profile.running`."""
        names = ("trtllm_num_requests_running", "trtllm_num_requests_waiting")
        return gauge(replies.get(PROMETHEUS, NOTHING), *names)

"""A cached prefix is expected of servers that have a cache, and of no others."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.dialects.prompt import Prompt, chain
from balancer.dialects.timings import Timings
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import QueuedRequest, ignore
from balancer.routing.tracking import AttemptTracker
from balancer.servers.report import LAUNCH
from edgeserve.served import Served
from tests.balancer.building import a_candidate, a_request
from tests.fakes.reports import an_engine


class Server:
    """One server behind the prediction; each request takes a second."""

    def __init__(self, slots: int = 4, **served: Any) -> None:
        self.now, slot_counts = 0.0, SlotCounts()
        model = FleetModel(PrefixCacheIndex(), slot_counts)
        self.policy = PredictivePolicy(slot_counts, model, lambda: self.now)
        engine = an_engine(
            "small", slots=slots, kind="server", launch=LAUNCH, served=Served(**served)
        )
        slot_counts.update([a_candidate(engine=engine)])
        self.policy.update([a_candidate(engine=engine)])

    def sends(self, prompt: Prompt) -> AttemptTracker:
        request = QueuedRequest(a_request(prompt=prompt), ignore, self.now)
        assert self.policy.refusal(request, self.now, full=False) is None
        ((_, send),) = self.policy.assign([request], self.now)
        assert isinstance(send, AttemptTracker)
        return send

    def answers(self, send: AttemptTracker, cached: int | None = None) -> None:
        self.now += 0.5
        send.wrote()
        self.now += 0.5
        send.answered(Timings(cached or 0, 1000 - (cached or 0), 0.0, 9, 0.0,
                              tells_cached=cached is not None))  # fmt: skip
        self.policy.give_back(send)

    def expected(self, *words: str) -> float:
        """How many cached tokens are expected for a request."""
        send = self.sends(a_prompt(*words))
        self.policy.give_back(send)
        return send.assignment.cached


def a_prompt(*words: str) -> Prompt:
    return chain([b"system" * 600, *(word.encode() * 40 for word in words)])


@pytest.mark.parametrize(
    ("cache", "expects"), [("shared", True), ("slots", True), ("unknown", False)]
)
def test_a_hit_is_expected_where_there_is_a_cache(cache: str, expects: bool) -> None:
    server = Server(cache=cache)
    server.answers(server.sends(a_prompt("question")))

    assert (server.expected("question", "more") > 500) == expects


def test_a_server_whose_answers_count_cached_tokens_has_a_cache_after_all() -> None:
    server = Server(cache="unknown")
    server.answers(server.sends(a_prompt("question")), cached=0)
    for more in "abcdef":
        server.answers(server.sends(a_prompt("question", more)), cached=900)

    assert server.expected("question", "g") > 500


def test_a_shared_cache_is_of_use_while_the_other_request_runs() -> None:
    shared, slots = Server(cache="shared"), Server(cache="slots")
    for each in (shared, slots):
        each.answers(each.sends(a_prompt("question")))
        each.sends(a_prompt("question", "one"))

    assert shared.expected("question", "two") > 500
    assert slots.expected("question", "two") == 0


def test_only_whole_blocks_are_found() -> None:
    server = Server(cache="shared", block=64)
    server.answers(server.sends(a_prompt("question")))

    assert server.expected("question", "more") % 64 == 0


def test_a_server_that_does_not_count_hits_is_not_thought_to_have_none() -> None:
    server = Server(cache="shared")
    for more in "abcdefgh":
        server.answers(server.sends(a_prompt("question", more)))

    assert server.expected("question", "x") > 500


def test_what_was_learned_about_prefixes_outlives_a_change_of_the_width() -> None:
    server = Server(cache="shared", slots=4)
    server.answers(server.sends(a_prompt("question")))
    for slots in (1, 8):
        narrow = an_engine(
            "small", slots=slots, kind="server", launch=LAUNCH,
            served=Served(cache="shared"),
        )  # fmt: skip
        server.policy.update([a_candidate(engine=narrow)])

        again = server.sends(a_prompt("question", "more"))
        assert again.assignment.cached > 500
        server.answers(again)

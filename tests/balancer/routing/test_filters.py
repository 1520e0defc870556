from collections.abc import Callable

import msgspec
import pytest

from balancer.fleet.engines import EngineCandidate, EngineKey, candidates
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, Wait
from balancer.routing.least_busy import choose
from edgeserve.errors import BadRequest, NoneAsGood, NoNode, UnknownModel
from edgeserve.wire import Ability
from tests.balancer.building import a_candidate, a_fleet, a_request, changed
from tests.fakes.reports import a_report, an_engine


def busy(**counts: int) -> Callable[[EngineKey], int]:
    return lambda key: counts.get(key[0], 0)


def decided(
    *able: EngineCandidate, routing: RoutingRequest | None = None, **counts: int
) -> Decision:
    return choose(able, routing or a_request(), busy(**counts))


def sent_to(decision: Decision) -> str:
    assert isinstance(decision, Send), decision
    return decision.to.node


def refusal(decision: Decision) -> str:
    assert isinstance(decision, Refuse), decision
    return str(decision.error)


def test_fewest_busy_slots_come_first() -> None:
    nuc = a_candidate("nuc", an_engine(slots=8))

    assert sent_to(decided(a_candidate("pi"), nuc, nuc=2, pi=1)) == "pi"


def test_equally_busy_engines_are_ranked_by_share() -> None:
    nuc = a_candidate("nuc", an_engine(slots=8))

    assert sent_to(decided(a_candidate("abc"), nuc, nuc=1, abc=1)) == "nuc"


def test_equals_are_ranked_by_name() -> None:
    assert sent_to(decided(a_candidate("b"), a_candidate("a"))) == "a"


def test_a_request_waits_when_every_slot_is_busy() -> None:
    assert isinstance(decided(a_candidate(), pi=2), Wait)


def test_a_request_for_several_slots_needs_them_at_once() -> None:
    routing = a_request(slots=2)

    assert isinstance(decided(a_candidate(), routing=routing, pi=1), Wait)
    assert isinstance(decided(a_candidate(), routing=routing), Send)


def test_more_answers_at_once_than_an_engine_gives_are_refused_with_their_number() -> (
    None
):
    wide = a_candidate("wide", an_engine("small:Q8_0", slots=4))

    assert "ask for 2 at most" in refusal(
        decided(a_candidate(), routing=a_request(slots=9))
    )
    told = refusal(decided(a_candidate(), wide, routing=a_request(slots=9)))
    assert "more than 4 answers" in told
    assert sent_to(decided(a_candidate(), wide, routing=a_request(slots=3))) == "wide"


def test_a_wide_engine_that_is_busy_is_waited_for() -> None:
    wide = a_candidate("wide", an_engine("small:Q8_0", slots=4))

    decision = decided(a_candidate(), wide, routing=a_request(slots=3), wide=2)

    assert isinstance(decision, Wait)


def test_without_a_model_nobody_claims_that_there_are_no_nodes() -> None:
    decision = decided()

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoNode)
    assert str(decision.error).startswith("no node with a model has been found yet; ")
    assert "edgeserve nodes" in str(decision.error)


def test_a_model_that_no_node_has_is_refused_rather_than_queued() -> None:
    decision = decided(a_candidate(), routing=a_request("huge"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, UnknownModel)
    assert "small, small:Q4_1" in str(decision.error)


@pytest.mark.parametrize("name", ["small", "small:Q4_1"])
def test_a_model_and_its_variant_both_name_an_engine(name: str) -> None:
    assert sent_to(decided(a_candidate(), routing=a_request(name))) == "pi"


def test_another_variant_of_the_model_is_not_meant() -> None:
    q8 = a_candidate("nuc", an_engine("small:Q8_0"))

    assert sent_to(decided(a_candidate(), q8, routing=a_request("small:Q8_0"))) == "nuc"


def test_without_a_model_the_only_one_is_meant() -> None:
    assert sent_to(decided(a_candidate(), routing=a_request(""))) == "pi"


def test_without_a_model_there_must_not_be_several() -> None:
    other = a_candidate("nuc", an_engine("other:Q4_1"))

    assert "small" in refusal(decided(a_candidate(), other, routing=a_request("")))


def test_without_a_model_those_that_cannot_do_it_do_not_count() -> None:
    embedder = a_candidate("nuc", an_engine("bge:F16", abilities=("embeddings",)))

    assert sent_to(decided(a_candidate(), embedder, routing=a_request(""))) == "pi"


@pytest.mark.parametrize("ability", ["embeddings", "rerank"])
def test_what_a_model_cannot_do_is_a_bad_request(ability: Ability) -> None:
    decision = decided(a_candidate(), routing=a_request(ability=ability))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, BadRequest)
    assert ability in str(decision.error)


def test_a_model_that_can_do_it_is_named() -> None:
    embedder = a_candidate("nuc", an_engine("bge:F16", abilities=("embeddings",)))

    message = refusal(
        decided(a_candidate(), embedder, routing=a_request(ability="embeddings"))
    )

    assert "ask bge" in message


def test_an_engine_that_was_tried_is_out() -> None:
    tried = frozenset({a_candidate("a").incarnation})

    assert (
        sent_to(
            decided(
                a_candidate("a"), a_candidate("b"), routing=a_request(tried=tried), b=1
            )
        )
        == "b"
    )


def test_when_all_were_tried_no_engine_is_left_to_wait_for() -> None:
    tried = frozenset({a_candidate().incarnation})

    assert "tried already" in refusal(
        decided(a_candidate(), routing=a_request(tried=tried))
    )


def test_an_engine_that_starts_anew_has_tried_nothing() -> None:
    before = a_candidate(engine=an_engine())
    failed = msgspec.structs.replace(before.engine, state="failed")
    anew = msgspec.structs.replace(before.engine, epoch=1)
    routing = a_request(tried=frozenset({before.incarnation}))

    down = a_candidate(engine=failed, unavailable="failed", temporary=True)
    assert isinstance(decided(down, routing=routing), Wait)
    assert sent_to(decided(a_candidate(engine=anew), routing=routing)) == "pi"


def test_one_that_has_not_failed_a_request_comes_before_one_that_started_anew() -> None:
    tried = frozenset({a_candidate("a").incarnation})
    anew = msgspec.structs.replace(an_engine(), epoch=1)

    decision = decided(
        a_candidate("a", anew), a_candidate("b"), routing=a_request(tried=tried), b=1
    )

    assert sent_to(decision) == "b"


def test_a_temporarily_unavailable_engine_is_waited_for() -> None:
    assert isinstance(decided(a_candidate(unavailable="loading", temporary=True)), Wait)


def test_a_lasting_reason_is_in_the_error() -> None:
    assert "quarantined" in refusal(decided(a_candidate(unavailable="quarantined")))


def test_a_context_that_looks_too_short_is_passed_over() -> None:
    short = a_candidate("a", an_engine(context=512))
    routing = a_request(tokens=2000)

    assert sent_to(decided(short, a_candidate("b"), routing=routing, b=1)) == "b"


def test_a_long_context_is_waited_for() -> None:
    short = a_candidate("a", an_engine(context=512))

    assert isinstance(
        decided(short, a_candidate("b"), routing=a_request(tokens=2000), b=2), Wait
    )


def test_a_guess_past_every_context_leaves_the_answer_to_the_longest() -> None:
    short = a_candidate("a", an_engine(context=512))

    assert (
        sent_to(decided(short, a_candidate("b"), routing=a_request(tokens=99_999)))
        == "b"
    )


def test_a_context_that_was_refused_is_not_asked_for_again() -> None:
    wide = a_candidate("wide", an_engine(context=8192))
    routing = a_request(too_short=4096)

    assert sent_to(decided(a_candidate(), wide, routing=routing, wide=1)) == "wide"
    assert isinstance(decided(a_candidate(), wide, routing=routing, wide=2), Wait)
    assert "too short" in refusal(decided(a_candidate(), routing=routing))


def test_images_go_to_engines_with_vision() -> None:
    seeing = a_candidate("eye", an_engine(abilities=("chat", "completion", "vision")))
    routing = a_request(extra_abilities=frozenset({"vision"}))

    assert sent_to(decided(a_candidate(), seeing, routing=routing, eye=1)) == "eye"


def test_what_no_engine_of_the_model_can_do_is_refused_and_names_one_that_can() -> None:
    sees = an_engine("qwen:Q4_1", abilities=("chat", "vision", "tools"))
    other = a_candidate("eye", sees)
    routing = a_request(extra_abilities=frozenset({"vision"}))
    tools = a_request(extra_abilities=frozenset({"vision", "tools"}))

    blind = decided(a_candidate(), other, routing=routing)
    assert isinstance(blind, Refuse)
    assert blind.error.status == 400
    assert "small cannot look at images; ask qwen" in refusal(blind)
    assert "call a tool" in refusal(decided(a_candidate(), other, routing=tools))
    assert "no model in the fleet can" in refusal(
        decided(other, routing=a_request("qwen", extra_abilities=frozenset({"audio"})))
    )


def test_a_variant_with_vision_is_waited_for_while_it_loads() -> None:
    sees = an_engine(abilities=("chat", "vision"), state="loading")
    loading = a_candidate("eye", sees, unavailable="loading", temporary=True)
    routing = a_request(extra_abilities=frozenset({"vision"}))

    assert isinstance(decided(a_candidate(), loading, routing=routing), Wait)


def test_every_candidate_gets_a_verdict() -> None:
    decision = decided(
        a_candidate("a"),
        a_candidate("b", unavailable="its node is suspect"),
        a_candidate("c"),
        a=1,
    )

    assert {v.candidate.node: v.reason for v in decision.verdicts} == {
        "a": "another has fewer busy slots",
        "b": "its node is suspect",
        "c": None,
    }


def test_candidates_say_why_they_cannot_take_work() -> None:
    report = a_report(
        an_engine("a:Q4_1"),
        an_engine("b:Q4_1", state="loading"),
        an_engine("c:Q4_1", state="quarantined", reason="it crashed five times"),
        an_engine("d:Q4_1", state="busy", busy=2),
        name="pi",
    )
    fleet = a_fleet("pi", report=report).turned_away("pi", "d:Q4_1")

    seen = {
        each.engine.id: (each.unavailable, each.temporary) for each in candidates(fleet)
    }

    assert seen == {
        "a:Q4_1": (None, False),
        "b:Q4_1": ("loading", True),
        "c:Q4_1": ("quarantined: it crashed five times", False),
        "d:Q4_1": ("its node had no slot left a moment ago", True),
    }


@pytest.mark.parametrize(
    ("state", "temporary"), [("suspect", True), ("unreachable", False)]
)
def test_only_a_suspect_node_is_worth_waiting_for(state: str, temporary: bool) -> None:
    fleet = a_fleet("pi").suspected("pi", "silence", 0.0)
    if state == "unreachable":
        fleet = fleet.missed("pi", "refused", 1.0)

    (only,) = candidates(fleet)

    assert only.unavailable is not None
    assert state in only.unavailable
    assert only.temporary == temporary


def test_a_node_that_drains_takes_no_work() -> None:
    report = changed(a_report(an_engine(), name="pi"), state="draining")

    (only,) = candidates(a_fleet("pi", report=report))

    assert (only.unavailable, only.temporary) == ("its node is shutting down", False)


def test_a_quality_floor_rules_out_lesser_variants_and_says_so() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))
    good = a_candidate("nuc", an_engine("small:Q8_0"))
    routing = a_request(floor="Q6_K")

    assert sent_to(decided(small, good, routing=routing)) == "nuc"
    (out,) = [
        each for each in decided(small, good, routing=routing).verdicts if each.reason
    ]
    assert out.reason == "small:Q4_0 is not as good as Q6_K"


def test_a_floor_that_no_variant_meets_is_not_to_be_asked_again() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))

    decision = decided(small, routing=a_request("small", floor="Q6_K"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoneAsGood)
    assert decision.error.status == 404
    assert str(decision.error) == (
        "no variant of 'small' is as good as Q6_K; being served: small:Q4_0"
    )


def test_a_floor_that_an_engine_out_of_order_meets_may_be_asked_again() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))
    good = a_candidate("nuc", an_engine("small:Q8_0"), unavailable="quarantined")

    decision = decided(small, good, routing=a_request(floor="Q6_K"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoNode)
    assert (decision.error.status, decision.error.retry_after) == (503, 5)


def test_no_request_waits_for_a_variant_below_the_floor() -> None:
    good = a_candidate("nuc", an_engine("small:Q8_0"), unavailable="quarantined")
    small = an_engine("small:Q4_0")
    loading = a_candidate("pi", small, unavailable="loading", temporary=True)

    decision = decided(loading, good, routing=a_request(floor="Q6_K"))

    assert "small:Q4_0 is not as good as Q6_K" in refusal(decision)

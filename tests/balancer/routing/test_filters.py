from collections.abc import Callable

import msgspec
import pytest

from balancer.fleet.engines import EngineCandidate, EngineKey, candidates, served
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, Wait
from balancer.routing.least_busy import choose
from edgeserve.errors import BadRequest, NoneAsGood, NoNode, UnknownModel
from edgeserve.wire import Ability
from tests.balancer.building import a_candidate, a_fleet, a_need, changed
from tests.fakes.reports import a_report, an_engine


def busy(**counts: int) -> Callable[[EngineKey], int]:
    return lambda key: counts.get(key[0], 0)


def decided(
    *able: EngineCandidate, need: RoutingRequest | None = None, **counts: int
) -> Decision:
    return choose(able, need or a_need(), busy(**counts))


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
    need = a_need(slots=2)

    assert isinstance(decided(a_candidate(), need=need, pi=1), Wait)
    assert isinstance(decided(a_candidate(), need=need), Send)


def test_more_answers_at_once_than_an_engine_gives_are_refused_with_their_number() -> (
    None
):
    wide = a_candidate("wide", an_engine("small:Q8_0", slots=4))

    assert "ask for 2 at most" in refusal(decided(a_candidate(), need=a_need(slots=9)))
    told = refusal(decided(a_candidate(), wide, need=a_need(slots=9)))
    assert "more than 4 answers" in told
    assert sent_to(decided(a_candidate(), wide, need=a_need(slots=3))) == "wide"


def test_a_wide_engine_that_is_busy_is_waited_for() -> None:
    wide = a_candidate("wide", an_engine("small:Q8_0", slots=4))

    decision = decided(a_candidate(), wide, need=a_need(slots=3), wide=2)

    assert isinstance(decision, Wait)


def test_an_empty_fleet_refuses_and_says_what_to_do() -> None:
    decision = decided()

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoNode)
    assert "edgeserve nodes" in str(decision.error)


def test_a_model_nobody_holds_is_refused_rather_than_queued() -> None:
    decision = decided(a_candidate(), need=a_need("huge"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, UnknownModel)
    assert "small, small:Q4_1" in str(decision.error)


@pytest.mark.parametrize("name", ["small", "small:Q4_1"])
def test_a_model_and_its_variant_both_name_an_engine(name: str) -> None:
    assert sent_to(decided(a_candidate(), need=a_need(name))) == "pi"


def test_another_variant_of_the_model_is_not_meant() -> None:
    q8 = a_candidate("nuc", an_engine("small:Q8_0"))

    assert sent_to(decided(a_candidate(), q8, need=a_need("small:Q8_0"))) == "nuc"


def test_without_a_model_the_only_one_is_meant() -> None:
    assert sent_to(decided(a_candidate(), need=a_need(""))) == "pi"


def test_without_a_model_there_must_not_be_several() -> None:
    other = a_candidate("nuc", an_engine("other:Q4_1"))

    assert "small" in refusal(decided(a_candidate(), other, need=a_need("")))


def test_without_a_model_those_that_cannot_do_it_do_not_count() -> None:
    embedder = a_candidate("nuc", an_engine("bge:F16", abilities=("embeddings",)))

    assert sent_to(decided(a_candidate(), embedder, need=a_need(""))) == "pi"


@pytest.mark.parametrize("ability", ["embeddings", "rerank"])
def test_what_a_model_cannot_do_is_a_bad_request(ability: Ability) -> None:
    decision = decided(a_candidate(), need=a_need(ability=ability))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, BadRequest)
    assert ability in str(decision.error)


def test_who_can_do_it_is_named() -> None:
    embedder = a_candidate("nuc", an_engine("bge:F16", abilities=("embeddings",)))

    message = refusal(
        decided(a_candidate(), embedder, need=a_need(ability="embeddings"))
    )

    assert "ask bge" in message


def test_an_engine_that_was_tried_is_out() -> None:
    tried = frozenset({a_candidate("a").life})

    assert (
        sent_to(
            decided(a_candidate("a"), a_candidate("b"), need=a_need(tried=tried), b=1)
        )
        == "b"
    )


def test_when_all_were_tried_nobody_is_left_to_wait_for() -> None:
    tried = frozenset({a_candidate().life})

    assert "tried already" in refusal(decided(a_candidate(), need=a_need(tried=tried)))


def test_an_engine_that_starts_anew_has_tried_nothing() -> None:
    before = a_candidate(engine=an_engine())
    failed = msgspec.structs.replace(before.engine, state="failed")
    anew = msgspec.structs.replace(before.engine, epoch=1)
    need = a_need(tried=frozenset({before.life}))

    down = a_candidate(engine=failed, barred="failed", passing=True)
    assert isinstance(decided(down, need=need), Wait)
    assert sent_to(decided(a_candidate(engine=anew), need=need)) == "pi"


def test_one_that_has_not_failed_a_request_comes_before_one_that_started_anew() -> None:
    tried = frozenset({a_candidate("a").life})
    anew = msgspec.structs.replace(an_engine(), epoch=1)

    decision = decided(
        a_candidate("a", anew), a_candidate("b"), need=a_need(tried=tried), b=1
    )

    assert sent_to(decision) == "b"


def test_a_bar_that_will_pass_is_waited_for() -> None:
    assert isinstance(decided(a_candidate(barred="loading", passing=True)), Wait)


def test_a_bar_that_stays_is_told() -> None:
    assert "quarantined" in refusal(decided(a_candidate(barred="quarantined")))


def test_a_context_that_looks_too_short_is_passed_over() -> None:
    short = a_candidate("a", an_engine(context=512))
    need = a_need(tokens=2000)

    assert sent_to(decided(short, a_candidate("b"), need=need, b=1)) == "b"


def test_a_long_context_is_waited_for() -> None:
    short = a_candidate("a", an_engine(context=512))

    assert isinstance(
        decided(short, a_candidate("b"), need=a_need(tokens=2000), b=2), Wait
    )


def test_a_guess_past_every_context_leaves_the_answer_to_the_longest() -> None:
    short = a_candidate("a", an_engine(context=512))

    assert sent_to(decided(short, a_candidate("b"), need=a_need(tokens=99_999))) == "b"


def test_a_context_that_was_refused_is_not_asked_for_again() -> None:
    wide = a_candidate("wide", an_engine(context=8192))
    need = a_need(too_short=4096)

    assert sent_to(decided(a_candidate(), wide, need=need, wide=1)) == "wide"
    assert isinstance(decided(a_candidate(), wide, need=need, wide=2), Wait)
    assert "too short" in refusal(decided(a_candidate(), need=need))


def test_images_go_to_engines_that_see() -> None:
    seeing = a_candidate("eye", an_engine(abilities=("chat", "completion", "vision")))
    need = a_need(also=frozenset({"vision"}))

    assert sent_to(decided(a_candidate(), seeing, need=need, eye=1)) == "eye"


def test_what_no_engine_of_the_model_can_do_is_refused_and_says_who_can() -> None:
    sees = an_engine("qwen:Q4_1", abilities=("chat", "vision", "tools"))
    other = a_candidate("eye", sees)
    need = a_need(also=frozenset({"vision"}))
    tools = a_need(also=frozenset({"vision", "tools"}))

    blind = decided(a_candidate(), other, need=need)
    assert isinstance(blind, Refuse)
    assert blind.error.status == 400
    assert "small cannot look at images; ask qwen" in refusal(blind)
    assert "call a tool" in refusal(decided(a_candidate(), other, need=tools))
    assert "no model in the fleet can" in refusal(
        decided(other, need=a_need("qwen", also=frozenset({"audio"})))
    )


def test_a_variant_that_sees_is_waited_for_while_it_loads() -> None:
    sees = an_engine(abilities=("chat", "vision"), state="loading")
    loading = a_candidate("eye", sees, barred="loading", passing=True)
    need = a_need(also=frozenset({"vision"}))

    assert isinstance(decided(a_candidate(), loading, need=need), Wait)


def test_every_candidate_gets_a_verdict() -> None:
    decision = decided(
        a_candidate("a"),
        a_candidate("b", barred="its node is suspect"),
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

    seen = {each.engine.id: (each.barred, each.passing) for each in candidates(fleet)}

    assert seen == {
        "a:Q4_1": (None, False),
        "b:Q4_1": ("loading", True),
        "c:Q4_1": ("quarantined: it crashed five times", False),
        "d:Q4_1": ("its node had no slot left a moment ago", True),
    }


@pytest.mark.parametrize(
    ("state", "passing"), [("suspect", True), ("unreachable", False)]
)
def test_only_a_suspect_node_is_worth_waiting_for(state: str, passing: bool) -> None:
    fleet = a_fleet("pi").suspected("pi", "silence", 0.0)
    if state == "unreachable":
        fleet = fleet.missed("pi", "refused", 1.0)

    (only,) = candidates(fleet)

    assert only.barred is not None
    assert state in only.barred
    assert only.passing == passing


def test_a_node_that_drains_takes_no_work() -> None:
    report = changed(a_report(an_engine(), name="pi"), state="draining")

    (only,) = candidates(a_fleet("pi", report=report))

    assert (only.barred, only.passing) == ("its node is shutting down", False)


def test_models_and_variants_are_listed_with_who_serves_them() -> None:
    wide = an_engine("small:Q8_0", slots=4, context=8192)

    found = served([a_candidate("pi"), a_candidate("nuc", wide)])

    assert [(each.name, each.nodes, each.context, each.slots) for each in found] == [
        ("small", ("nuc", "pi"), 8192, 6),
        ("small:Q4_1", ("pi",), 4096, 2),
        ("small:Q8_0", ("nuc",), 8192, 4),
    ]


def test_what_cannot_be_called_now_is_not_listed() -> None:
    loading = an_engine("b:Q4_1", state="loading")
    report = a_report(an_engine("a:Q4_1"), loading, name="pi")

    found = served(candidates(a_fleet("pi", report=report)))

    assert [each.name for each in found] == ["a", "a:Q4_1"]


def test_a_quality_floor_rules_out_lesser_variants_and_says_so() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))
    good = a_candidate("nuc", an_engine("small:Q8_0"))
    need = a_need(floor="Q6_K")

    assert sent_to(decided(small, good, need=need)) == "nuc"
    (out,) = [each for each in decided(small, good, need=need).verdicts if each.reason]
    assert out.reason == "small:Q4_0 is not as good as Q6_K"


def test_a_floor_that_no_variant_meets_is_not_to_be_asked_again() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))

    decision = decided(small, need=a_need("small", floor="Q6_K"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoneAsGood)
    assert decision.error.status == 404
    assert str(decision.error) == (
        "no variant of 'small' is as good as Q6_K; being served: small:Q4_0"
    )


def test_a_floor_that_an_engine_out_of_order_meets_may_be_asked_again() -> None:
    small = a_candidate("pi", an_engine("small:Q4_0"))
    good = a_candidate("nuc", an_engine("small:Q8_0"), barred="quarantined")

    decision = decided(small, good, need=a_need(floor="Q6_K"))

    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, NoNode)
    assert (decision.error.status, decision.error.retry_after) == (503, 5)


def test_nobody_waits_for_a_variant_below_the_floor_to_load() -> None:
    good = a_candidate("nuc", an_engine("small:Q8_0"), barred="quarantined")
    small = an_engine("small:Q4_0")
    loading = a_candidate("pi", small, barred="loading", passing=True)

    decision = decided(loading, good, need=a_need(floor="Q6_K"))

    assert "small:Q4_0 is not as good as Q6_K" in refusal(decision)

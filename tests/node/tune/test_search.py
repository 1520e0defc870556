"""Searching on pretended machines whose true speeds are known."""

import math
import random
from collections.abc import Callable

import msgspec
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu
from edgeserve.wire import Launch
from node.planning.tunings import Figures
from node.tune.axes import axes
from node.tune.search import Axis, Search, Verdict, put, score, verdict

UNTUNED = Launch(slots=1, context=4096, batch=256, threads=4)
CPU = Cpu(model="Pi", physical_cores=4, logical_cores=8, load=0.0)
AXES = axes(UNTUNED, CPU, NodeSettings())

Machine = Callable[[Launch], Figures | None]


def pi(launch: Launch) -> Figures | None:
    """Best with three threads for one stream and four for more, a batch of 512, and
    four slots; q8_0 is slow."""
    if launch.speculative == "ngram-mod":
        return None
    thinking = {1: 0.4, 2: 0.7, 3: 1.1, 4: 1.0, 8: 0.5}[launch.threads]
    threads = launch.threads_batch or launch.threads
    together = {1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 8: 0.6}[threads]
    reading = {512: 1.2, 1024: 1.1, 256: 1.0}.get(launch.batch, 0.8)
    many = {1: 1.0, 2: 1.5, 4: 2.0, 8: 1.6, 16: 1.0, 32: 0.5}[launch.slots]
    kept = 0.8 if launch.kv_type == "q8_0" else 1.0
    plain = 1.0 if launch.flash_attention else 0.9
    small = 0.9 if launch.ubatch else 1.0
    return Figures(
        prefill=500 * together * reading * plain * small,
        decode=10 * thinking * kept * plain,
        aggregate=10 * together * kept * plain * many,
    )


def noisy(machine: Machine, spread: float, seed: int) -> Machine:
    chance = random.Random(seed)  # noqa: S311 - noise is no secret

    def measured(launch: Launch) -> Figures | None:
        true = machine(launch)
        if true is None:
            return None
        return Figures(
            **{
                name: value * math.exp(chance.gauss(0, spread))
                for name, value in msgspec.structs.asdict(true).items()
            }
        )

    return measured


def searched(search: Search, machine: Machine, most: int = 1000) -> list[Launch]:
    """Answer every question of a search; returns what it asked."""
    asked: list[Launch] = []
    trials = search.trials()
    launch = next(trials)
    try:
        for _ in range(most):
            asked.append(launch)
            launch = trials.send(machine(launch))
    except StopIteration:
        pass
    return asked


def anything(_launch: Launch) -> bool:
    return True


def test_the_best_settings_are_found_where_nothing_is_noisy() -> None:
    search = Search(UNTUNED, AXES, anything)
    asked = searched(search, pi)

    assert search.best == msgspec.structs.replace(
        UNTUNED, threads=3, threads_batch=4, batch=512, slots=4
    )
    assert len(asked) < 60


@pytest.mark.parametrize(
    ("spread", "mistakes", "gains"), [(0.02, 0, 190), (0.1, 0, 50), (0.3, 3, 5)]
)
def test_noise_hides_gains_and_makes_nothing_worse(
    spread: float, mistakes: int, gains: int
) -> None:
    made = [outcome(noisy(pi, spread, seed)) for seed in range(200)]

    assert sum(each < 1.0 for each in made) <= mistakes
    assert sum(each > 1.0 for each in made) >= gains


def outcome(machine: Machine) -> float:
    """Tune a machine, and say how good the result truly is, 1.0 being untuned."""
    search = Search(UNTUNED, AXES, anything)
    searched(search, machine)
    if search.best == UNTUNED or not confirmed(machine, search.best).accepted:
        return 1.0
    before, after = pi(UNTUNED), pi(search.best)
    assert before is not None
    assert after is not None
    return score(after, before)


def confirmed(machine: Machine, best: Launch, pairs: int = 3) -> Verdict:
    found: list[tuple[Figures, Figures]] = []
    for _ in range(pairs):
        untuned, tuned = machine(UNTUNED), machine(best)
        assert untuned is not None
        assert tuned is not None
        found.append((untuned, tuned))
    return verdict(found)


def flat(_launch: Launch) -> Figures:
    return Figures(prefill=50, decode=10, aggregate=10)


def test_where_nothing_makes_a_difference_the_untuned_stay() -> None:
    search = Search(UNTUNED, AXES, anything)
    searched(search, flat)

    assert search.best == UNTUNED
    assert not confirmed(flat, UNTUNED).accepted


def test_what_does_not_fit_is_never_measured() -> None:
    search = Search(UNTUNED, AXES, lambda launch: launch.slots <= 2)
    asked = searched(search, pi)

    assert max(launch.slots for launch in asked) == 2


def test_no_batch_delays_a_cancellation_for_long() -> None:
    def slow(launch: Launch) -> Figures:
        # Larger batches read ever faster, but it takes seconds to read one.
        return Figures(prefill=100 * launch.batch / 256, decode=10, aggregate=10)

    search = Search(UNTUNED, AXES, anything)
    asked = searched(search, slow)

    assert max(launch.batch for launch in asked) == 256


def test_a_machine_that_does_not_run_untuned_is_left() -> None:
    search = Search(UNTUNED, AXES, anything)

    assert searched(search, lambda _launch: None) == [UNTUNED]
    assert search.base is None


def test_a_search_broken_off_keeps_what_it_has_found() -> None:
    search = Search(UNTUNED, AXES, anything)
    searched(search, pi, most=8)

    assert search.best.slots > 1


def test_what_seemed_better_when_time_was_over_is_worth_confirming() -> None:
    search = Search(UNTUNED, AXES, anything)
    searched(search, pi, most=2)

    assert search.best.slots == 2


def test_one_figure_may_not_pay_for_the_others() -> None:
    def greedy(launch: Launch) -> Figures:
        decode = 8 if launch.slots == 2 else 10
        many = 100 if launch.slots == 2 else 10
        return Figures(prefill=50, decode=decode, aggregate=many)

    search = Search(UNTUNED, [Axis("slots", ((put(slots=2),),))], anything)
    searched(search, greedy)

    assert search.best == UNTUNED


def test_configured_settings_are_not_tried() -> None:
    settings = NodeSettings(slots=1, threads=4, batch=256)
    names = [each.name for each in axes(UNTUNED, CPU, settings)]

    assert names == ["spin", "ubatch", "flash attention", "KV type", "speculation"]


GPU = msgspec.structs.replace(UNTUNED, slots=4, batch=2048, ubatch=512, gpu_layers=-1)


def test_on_a_gpu_no_threads_are_tried_unless_the_processor_computes_too() -> None:
    names = [each.name for each in axes(GPU, CPU, NodeSettings())]

    assert "threads" not in names
    part = msgspec.structs.replace(GPU, gpu_layers=12)
    assert "threads" in [each.name for each in axes(part, CPU, NodeSettings())]


def test_what_the_engine_does_not_know_is_not_tried() -> None:
    known = [each.name for each in axes(GPU, CPU, NodeSettings(), options=())]

    assert "speculation" not in known


def test_each_draft_model_is_tried_with_few_and_more_tokens() -> None:
    drafts = ("a:Q4_0", "b:Q4_0", "c:Q4_0", "d:Q4_0")
    each = axes(UNTUNED, CPU, NodeSettings(), drafts=drafts)
    [axis] = [axis for axis in each if axis.name == "draft model"]
    tried = [[step(UNTUNED) for step in ladder] for ladder in axis.ladders]

    assert [
        [(launch.draft, launch.draft_tokens) for launch in way] for way in tried
    ] == [[(name, 3), (name, 6)] for name in drafts[:3]]
    assert {launch.speculative for way in tried for launch in way} == {"draft-simple"}
    without = axes(UNTUNED, CPU, NodeSettings(), {"--spec-type"}, drafts)
    assert "draft model" not in [each.name for each in without]


def test_guessing_from_the_text_needs_no_draft_model() -> None:
    drafted = msgspec.structs.replace(
        UNTUNED, speculative="draft-simple", draft="a:Q4_0", draft_tokens=6
    )
    each = axes(UNTUNED, CPU, NodeSettings())
    [axis] = [axis for axis in each if axis.name == "speculation"]

    tried = axis.ladders[0][0](drafted)
    assert (tried.speculative, tried.draft, tried.draft_tokens) == ("ngram-mod", "", 0)


def test_a_larger_computation_stays_within_the_batch() -> None:
    [axis] = [each for each in axes(GPU, CPU, NodeSettings()) if each.name == "ubatch"]
    first, second = axis.ladders[0]

    assert first(GPU).ubatch == 1024
    assert second(second(second(GPU))).ubatch == GPU.batch
    assert axis.ladders[0][0](UNTUNED) == UNTUNED  # it is all of the batch already


def test_threads_for_one_stream_leave_those_for_many_alone() -> None:
    [axis] = [each for each in AXES if each.name == "threads"]
    launches = [ladder[0](UNTUNED) for ladder in axis.ladders]

    assert [each.threads for each in launches] == [8, 3, 2]
    assert {each.threads_batch for each in launches} == {4}


def figures(factor: float, decode: float = 1.0) -> Figures:
    return Figures(
        prefill=100 * factor, decode=10 * factor * decode, aggregate=20 * factor
    )


@pytest.mark.parametrize(
    ("pairs", "accepted"),
    [
        ([(1.0, 1.2), (1.0, 1.2)], True),
        ([(1.0, 1.01), (1.0, 1.01)], False),
        ([(1.0, 1.0), (1.0, 1.0)], False),
        ([(1.0, 0.9), (1.0, 0.9)], False),
        ([(1.0, 1.5), (1.0, 0.9)], False),
        ([(1.0, 1.1), (1.2, 1.32), (0.7, 0.77)], True),
        ([(1.0, 1.3)], False),
        ([(0.4, 1.2), (1.0, 1.15), (1.0, 1.25)], True),
        ([(0.4, 1.0), (1.0, 1.0), (1.0, 1.0)], False),
    ],
)
def test_ties_and_doubts_go_to_the_untuned(
    pairs: list[tuple[float, float]], accepted: bool
) -> None:
    found = verdict([(figures(one), figures(two)) for one, two in pairs])

    assert found.accepted is accepted


def test_no_figure_may_end_up_worse_but_for_one_spoilt_measurement() -> None:
    fair = (figures(1.0), figures(1.3))
    slower = (figures(1.0), figures(1.3, decode=0.7))

    assert verdict([slower] * 3).gain > 0
    assert not verdict([slower] * 3).accepted
    assert verdict([fair, slower, fair, fair]).accepted

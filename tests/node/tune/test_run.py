"""A whole tuning against pretended engines and a hand-wound clock."""

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu
from edgeserve.wire import Launch
from node.planning.tunings import Figures, Key, Tuned
from node.tune.axes import axes
from node.tune.run import NotMeasured, Tuning
from node.tune.search import Search
from node.tune.trial import Judge, TrialFailed, Work

UNTUNED = Launch(slots=1, context=4096, batch=256, threads=4)
CPU = Cpu(model="Pi", physical_cores=4, logical_cores=4, load=0.0)
KEY = Key(machine="m", engine="e", variant="a:Q4_0", file_bytes=7, role="generate")


class Pretended:
    """Each trial takes ten seconds; two slots write half as much again."""

    def __init__(
        self,
        *,
        broken: bool = False,
        fades_after: int = 10**9,
        drafted: float = 0.5,
        reads: float = 400,
    ) -> None:
        self.now = 0.0
        self.trials: list[tuple[Launch, Work]] = []
        self.gives_up: list[bool] = []
        self._broken = broken
        self._fades_after = fades_after
        self._drafted, self._reads = drafted, reads

    async def figures(
        self, launch: Launch, work: Work, seconds: float, hopeless: Judge
    ) -> Figures:
        assert seconds > 10
        self.gives_up.append(hopeless(Figures(prefill=100, decode=2, aggregate=2)))
        assert not hopeless(Figures(prefill=400, decode=9, aggregate=9))
        self.now += 10
        self.trials.append((launch, work))
        if launch.draft_tokens == 3:
            decode = 10 * self._drafted
            return Figures(prefill=self._reads, decode=decode, aggregate=decode)
        if self._broken or launch.speculative:
            raise TrialFailed("killed by SIGSEGV")
        gains = launch.slots == 2 and len(self.trials) < self._fades_after
        return Figures(prefill=400, decode=10, aggregate=15 if gains else 10)


class Heard:
    def __init__(self) -> None:
        self.confirmed = 0
        self.failures: list[str] = []

    def trying(self, changes: Tuned, confirming: bool) -> None:  # noqa: ARG002 - the protocol's
        self.confirmed += confirming

    def measured(
        self,
        changes: Tuned,  # noqa: ARG002 - the protocol's
        found: Figures | str,
        gain: float | None,  # noqa: ARG002
    ) -> None:
        if isinstance(found, str):
            self.failures.append(found)


def tuning(
    bench: Pretended, heard: Heard, seconds: float, drafts: tuple[str, ...] = ()
) -> Tuning:
    tried = axes(UNTUNED, CPU, NodeSettings(), drafts=drafts)
    return Tuning(
        bench=bench,
        search=Search(UNTUNED, tried, lambda _: True),
        untuned=UNTUNED,
        seconds=seconds,
        load_seconds=600,
        observer=heard,
        clock=lambda: bench.now,
    )


async def test_the_best_is_found_confirmed_and_reported() -> None:
    bench, heard = Pretended(), Heard()
    result = await tuning(bench, heard, 1000).result(KEY)

    assert result.tuned == Tuned(slots=2)
    assert result.wanted == 0
    assert result.gain == pytest.approx(1.5**0.4 - 1)
    assert result.best.aggregate / result.untuned.aggregate == pytest.approx(1.5)
    assert heard.confirmed == 2 * 6
    assert heard.failures == ["killed by SIGSEGV"] * 3


async def test_time_is_kept_and_the_best_so_far_confirmed() -> None:
    bench, heard = Pretended(), Heard()
    result = await tuning(bench, heard, 140).result(KEY)

    assert bench.now <= 140
    assert result.wanted == 45 * 10
    assert result.tuned == Tuned(slots=2)
    assert heard.confirmed == 2 * 3


async def test_without_time_to_search_the_untuned_are_measured_and_stay() -> None:
    bench = Pretended()
    result = await tuning(bench, Heard(), 1).result(KEY)

    assert result.tuned == Tuned()
    assert result.untuned == result.best
    assert len(bench.trials) == 2


async def test_a_gain_that_does_not_last_is_none() -> None:
    bench = Pretended(fades_after=9)
    result = await tuning(bench, Heard(), 1000).result(KEY)

    assert result.tuned == Tuned()
    assert result.gain == 0


async def test_work_is_measured_roughly_first_to_know_what_there_is_time_for() -> None:
    bench = Pretended()
    await tuning(bench, Heard(), 300).result(KEY)

    works = [work for _, work in bench.trials]
    assert works[0] == Work()
    assert len(set(works[1:])) == 1
    assert works[1].prompt > works[0].prompt


async def test_what_is_far_slower_is_measured_once_but_never_what_is_compared() -> None:
    bench, heard = Pretended(), Heard()
    await tuning(bench, heard, 1000).result(KEY)

    searched = bench.gives_up[2 : -heard.confirmed]
    assert searched
    assert all(searched)
    assert not any(bench.gives_up[:2] + bench.gives_up[-heard.confirmed :])


async def test_an_engine_that_does_not_run_is_reported() -> None:
    with pytest.raises(NotMeasured, match="SIGSEGV"):
        await tuning(Pretended(broken=True), Heard(), 100).result(KEY)


DRAFTED = Tuned(speculative="draft-simple", draft="small:Q4_0", draft_tokens=3)


@pytest.mark.parametrize(
    ("speed", "reads", "kept"),
    [
        (2.0, 400, DRAFTED),
        (0.6, 400, Tuned(slots=2)),
        # It reads each prompt, too: what that takes is a price, more is a fault.
        (2.0, 310, DRAFTED),
        (2.0, 250, Tuned(slots=2)),
        # What writing gains does not make up for it.
        (1.05, 310, Tuned(slots=2)),
    ],
)
async def test_a_draft_model_is_kept_only_where_it_pays(
    speed: float, reads: float, kept: Tuned
) -> None:
    bench = Pretended(drafted=speed, reads=reads)
    found = await tuning(bench, Heard(), 2000, ("small:Q4_0",)).result(KEY)

    tried = {launch.draft_tokens for launch, _ in bench.trials if launch.draft}
    assert tried == {3, 6}
    assert {k: found.tuned.changes.get(k) for k in kept.changes} == kept.changes
    assert bool(found.tuned.draft) is bool(kept.draft)

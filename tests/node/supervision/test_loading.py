from node.supervision.loading import LoadProgress, estimate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_time_over_the_expected_time_and_never_done_before_ready() -> None:
    clock = Clock()
    load = LoadProgress(4.0, clock)
    before = load.share
    load.begin()
    shares = list[float | None]()
    for clock.now in (0.0, 1.0, 2.0, 9.0):
        shares.append(load.share)
    load.end()

    assert before is None
    assert shares == [0.0, 0.25, 0.5, 0.95]
    assert load.share is None
    assert load.seconds == 9.0


def test_progress_is_told_at_most_twice_a_second() -> None:
    clock = Clock()
    load = LoadProgress(100.0, clock)
    load.begin()
    told = 0
    for tick in range(1, 501):
        clock.now = tick / 100
        told += load.due()

    assert told == 10


def test_only_the_first_load_counts_as_failed() -> None:
    over = list[bool]()
    load = LoadProgress(1.0, Clock(), over=lambda: over.append(True))
    load.begin()
    load.fail("bad tensors")
    failed = load.failed
    load.begin()
    load.end()
    load.fail("it crashed later")

    assert failed == "bad tensors"
    assert load.failed is None
    assert over == [True, True]


def test_without_a_measurement_the_size_of_the_files_decides() -> None:
    assert estimate(0) == 1.0
    assert estimate(3 * 10**9) == 11.0

from node.supervision.restart import RestartBackoff


def test_restarts_come_later_and_later_until_half_a_minute() -> None:
    failures, delays = RestartBackoff(), list[float]()
    for _ in range(7):
        failures = failures.after(0.0, ready_seconds=0.0)
        delays.append(failures.delay)

    assert delays == [1, 2, 4, 8, 16, 30, 30]


def test_the_fourth_failure_in_five_minutes_ends_the_restarts() -> None:
    failures = RestartBackoff()
    verdicts = list[bool]()
    for now in (0.0, 99.0, 198.0, 297.0):
        failures = failures.after(now, ready_seconds=0.0)
        verdicts.append(failures.hopeless)

    assert verdicts == [False, False, False, True]


def test_failures_far_apart_do_not_add_up() -> None:
    failures = RestartBackoff()
    for now in (0.0, 200.0, 400.0, 600.0, 800.0):
        failures = failures.after(now, ready_seconds=0.0)

    assert not failures.hopeless


def test_a_minute_of_readiness_resets_the_count() -> None:
    failures = RestartBackoff((0.0, 1.0, 2.0)).after(70.0, ready_seconds=60.0)

    assert failures == RestartBackoff((70.0,))
    assert failures.delay == 1.0

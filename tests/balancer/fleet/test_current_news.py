from balancer.fleet.current import news
from edgeserve.http.types import Origin
from tests.balancer.building import a_fleet, changed
from tests.fakes.reports import a_report, an_engine

NOBODY = a_fleet()


def test_a_node_that_joins_is_logged_with_its_slots() -> None:
    assert news(NOBODY, a_fleet("pi")) == ["pi joined (2 slots)"]


def test_one_slot_is_one_slot() -> None:
    fleet = a_fleet("pi", report=a_report(an_engine(slots=1), name="pi"))

    assert news(NOBODY, fleet) == ["pi joined (1 slot)"]


def test_a_node_without_an_engine_is_logged() -> None:
    fleet = a_fleet("pi", report=a_report(name="pi"))

    assert news(NOBODY, fleet) == ["pi joined (no engine is ready yet)"]


def test_a_node_leaves_when_it_cannot_be_reached_not_when_it_is_suspect() -> None:
    up = a_fleet("pi")
    suspect = up.suspected("pi", "silence", 0.0)

    assert news(up, suspect) == []
    assert news(suspect, suspect.missed("pi", "refused", 0.0)) == ["pi left: refused"]


def test_a_node_that_is_back_has_joined_again() -> None:
    gone = a_fleet("pi").missed("pi", "refused", 0.0)

    assert news(gone, gone.heard("pi")) == ["pi joined (2 slots)"]


def test_a_node_that_is_forgotten_long_after_it_left_is_no_news() -> None:
    gone = a_fleet("pi").missed("pi", "refused", 0.0)

    assert news(gone, gone.forgotten("pi")) == []


def test_an_engine_that_becomes_ready_is_logged() -> None:
    loading = a_fleet("pi", report=a_report(an_engine(state="loading"), name="pi"))

    assert news(loading, loading.engine_changed("pi", an_engine())) == [
        "pi serves small:Q4_1 (2 slots)"
    ]


def test_a_node_that_shuts_down_is_logged() -> None:
    up = a_fleet("pi")
    leaving = changed(a_report(an_engine(), name="pi"), state="draining")

    after = up.reported("pi", Origin("h", 1), leaving)

    assert news(up, after) == ["pi is shutting down"]


def test_why_a_node_cannot_be_followed_is_logged_once() -> None:
    seen = a_fleet().discovered("pi", "mdns", (Origin("h", 1),), None)
    missed = seen.missed("pi", "it speaks protocol 9", 0.0)

    assert news(seen, missed) == ["pi cannot be used: it speaks protocol 9"]
    assert news(missed, missed.missed("pi", "it speaks protocol 9", 1.0)) == []


def test_a_cloned_disk_is_logged() -> None:
    one = a_fleet("pi")
    twin = changed(a_report(an_engine(), name="pi"), instance="other")
    origin = Origin("10.0.0.9", 8090)

    both = one.discovered("b", "mdns", (origin,), None).reported("b", origin, twin)

    assert any("cloned" in line for line in news(one, both))

from balancer.fleet.members import Fleet
from edgeserve.http.types import Origin
from tests.balancer.building import HERE, THERE, a_fleet, changed
from tests.fakes.reports import a_report, an_engine


def states(fleet: Fleet) -> dict[str, str]:
    return {node.id: node.state for node in fleet.nodes}


def test_a_node_is_in_the_fleet_once_it_has_reported() -> None:
    seen = Fleet().discovered("a", "mdns", (HERE,), None)

    assert seen.nodes == ()
    assert states(seen.reported("a", HERE, a_report(name="pi"))) == {"pi": "up"}


def test_events_leave_the_older_table_as_it_was() -> None:
    before = a_fleet("pi")
    before.suspected("pi", "silence", 1.0)

    assert states(before) == {"pi": "up"}


def test_a_node_seen_under_two_names_is_one_node() -> None:
    fleet = a_fleet("pi").discovered("url", "static", (THERE,), None)
    fleet = fleet.reported("url", THERE, a_report(an_engine(), name="pi"))

    assert [node.id for node in fleet.nodes] == ["pi"]
    assert fleet.nodes[0].addresses == ("pi", "url")


def test_a_node_with_two_addresses_survives_the_loss_of_one() -> None:
    fleet = a_fleet("pi").discovered("url", "static", (THERE,), None)
    fleet = fleet.reported("url", THERE, a_report(an_engine(), name="pi"))

    fleet = fleet.suspected("pi", "silence", 1.0)

    assert states(fleet) == {"pi": "up"}
    assert fleet.nodes[0].origin == THERE


def test_a_node_whose_address_changes_stays_the_same_node() -> None:
    fleet = a_fleet("pi").discovered("pi", "mdns", (THERE,), "pi")
    fleet = fleet.reported("pi", THERE, a_report(an_engine(), name="pi"))

    assert [(m.id, m.origin) for m in fleet.nodes] == [("pi", THERE)]


def test_two_processes_with_one_id_are_both_served_and_reported_as_clones() -> None:
    report = a_report(an_engine(), name="pi")
    fleet = a_fleet("pi").discovered("other", "mdns", (THERE,), None)
    fleet = fleet.reported("other", THERE, changed(report, instance="another"))

    first, second = fleet.nodes
    assert (first.id, second.id) == ("pi", "pi@10.0.0.2:8090")
    assert "cloned" in (first.problem or "")
    assert "cloned" in (second.problem or "")


def test_a_node_that_restarted_elsewhere_is_no_clone_once_its_old_stream_is_lost() -> (
    None
):
    report = a_report(an_engine(), name="pi")
    fleet = a_fleet("pi").discovered("other", "mdns", (THERE,), None)
    fleet = fleet.reported("other", THERE, changed(report, instance="another"))

    fleet = fleet.suspected("pi", "silence", 1.0)

    assert [(m.id, m.problem) for m in fleet.nodes] == [("pi", None)]


def test_a_withdrawal_removes_no_node_that_still_answers() -> None:
    fleet = a_fleet("pi").withdrawn("pi", 5.0)

    assert states(fleet) == {"pi": "up"}
    assert not fleet.forgettable("pi", 10_000.0, after=60.0)


def test_a_node_is_forgotten_a_while_after_it_is_both_gone_and_unannounced() -> None:
    fleet = a_fleet("pi").suspected("pi", "reset", 10.0).missed("pi", "refused", 11.0)
    assert not fleet.forgettable("pi", 1000.0, after=60.0), "still announced"

    fleet = fleet.withdrawn("pi", 20.0)

    assert not fleet.forgettable("pi", 79.0, after=60.0)
    assert fleet.forgettable("pi", 80.0, after=60.0)
    assert fleet.forgotten("pi").nodes == ()


def test_trying_in_vain_again_does_not_prolong_the_memory() -> None:
    fleet = a_fleet("pi").withdrawn("pi", 0.0).missed("pi", "refused", 1.0)

    fleet = fleet.missed("pi", "refused", 50.0)

    assert fleet.forgettable("pi", 61.0, after=60.0)


def test_a_repeated_discovery_makes_it_announced_again() -> None:
    fleet = a_fleet("pi").withdrawn("pi", 0.0).missed("pi", "refused", 1.0)

    fleet = fleet.discovered("pi", "mdns", (HERE,), None)

    assert not fleet.forgettable("pi", 1000.0, after=60.0)


def test_silence_makes_suspect_and_a_heartbeat_clears_it() -> None:
    fleet = a_fleet("pi").suspected("pi", "silence", 1.0)
    assert states(fleet) == {"pi": "suspect"}

    assert states(fleet.heard("pi")) == {"pi": "up"}


def test_silence_on_every_address_makes_unreachable() -> None:
    fleet = a_fleet("pi").suspected("pi", "silence", 1.0).missed("pi", "refused", 2.0)

    assert states(fleet) == {"pi": "unreachable"}
    assert fleet.nodes[0].problem == "refused"


def test_a_heartbeat_that_says_nothing_new_makes_no_new_table() -> None:
    fleet = a_fleet("pi")

    assert fleet.heard("pi") is fleet


def test_an_engine_that_changes_keeps_its_place() -> None:
    report = a_report(an_engine("a:Q4_1"), an_engine("b:Q4_1"), name="pi")
    fleet = a_fleet("pi", report=report)

    fleet = fleet.engine_changed("pi", an_engine("a:Q4_1", busy=1))

    engines = fleet.nodes[0].report.engines
    assert [(each.id, each.busy) for each in engines] == [("a:Q4_1", 1), ("b:Q4_1", 0)]


def test_an_engine_that_is_new_is_added() -> None:
    fleet = a_fleet("pi").engine_changed("pi", an_engine("b:Q4_1"))

    assert [e.id for e in fleet.nodes[0].report.engines] == ["small:Q4_1", "b:Q4_1"]


def test_a_failed_request_makes_only_the_address_it_used_suspect() -> None:
    fleet = a_fleet("pi", "nuc").failed("pi", "reset", 1.0)

    assert states(fleet) == {"pi": "suspect", "nuc": "up"}


def test_an_engine_without_a_free_slot_is_full_until_the_next_event() -> None:
    fleet = a_fleet("pi").turned_away("pi", "small:Q4_1")
    assert fleet.nodes[0].full == {"small:Q4_1"}

    assert fleet.heard("pi").nodes[0].full == frozenset()


def test_a_node_that_drains_says_so_itself() -> None:
    report = a_report(an_engine(), name="pi", state="draining")

    assert states(a_fleet("pi", report=report)) == {"pi": "draining"}


def test_events_about_unknown_keys_change_nothing() -> None:
    fleet = a_fleet("pi")

    assert fleet.withdrawn("x", 0.0) is fleet
    assert fleet.reported("x", Origin("h", 1), a_report()) is fleet
    assert fleet.engine_changed("x", an_engine()) is fleet
    assert fleet.suspected("x", "", 0.0) is fleet
    assert fleet.missed("x", "", 0.0) is fleet
    assert fleet.failed("x", "", 0.0) is fleet
    assert fleet.turned_away("x", "y") is fleet


def named(*ids: str, name: str = "raspberrypi") -> list[str]:
    fleet = Fleet()
    for count, id_ in enumerate(ids):
        origin = Origin(f"10.0.1.{count}", 8090)
        report = changed(a_report(an_engine(), name=name), id=id_, instance=id_)
        fleet = fleet.discovered(id_, "mdns", (origin,), None)
        fleet = fleet.reported(id_, origin, report)
    return [node.name for node in fleet.nodes]


def test_a_name_that_one_node_has_stays_as_it_is() -> None:
    assert named("3f2a77b1") == ["raspberrypi"]


def test_nodes_of_one_name_get_a_part_of_their_ids() -> None:
    assert named("3f2a77b1", "90ccab12") == ["raspberrypi#3f2a", "raspberrypi#90cc"]


def test_as_much_of_the_ids_is_shown_as_differs() -> None:
    assert named("3f2a77b1", "3f2a78b1") == ["raspberrypi#3f2a77", "raspberrypi#3f2a78"]


def test_clones_get_their_addresses_as_names() -> None:
    report = a_report(an_engine(), name="pi")
    fleet = a_fleet("pi").discovered("other", "mdns", (THERE,), None)
    fleet = fleet.reported("other", THERE, changed(report, instance="another"))

    assert [each.name for each in fleet.nodes] == ["pi#pi", "pi#10.0.0.2:8090"]

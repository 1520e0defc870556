from __future__ import annotations

from ipaddress import ip_interface

from balancer.discovery.hints import ordered

OWN = (
    ip_interface("192.168.1.10/24"),
    ip_interface("172.17.0.1/16"),
    ip_interface("fe80::10%eth0/64"),
)


def test_a_nearby_ipv4_address_goes_first_and_link_local_last() -> None:
    announced = ("fe80::5%2", "fd00::5", "10.8.0.5", "192.168.1.5")

    assert ordered(announced, OWN) == (
        "192.168.1.5",
        "10.8.0.5",
        "fd00::5",
        "fe80::5%2",
    )


def test_a_bridge_address_that_we_have_too_is_the_last_resort() -> None:
    assert ordered(("172.17.0.1", "10.0.0.5"), OWN) == ("10.0.0.5", "172.17.0.1")


def test_a_node_on_this_machine_is_reached_at_our_own_addresses() -> None:
    announced = ("172.17.0.1", "192.168.1.10")

    assert ordered(announced, OWN) == ("172.17.0.1", "192.168.1.10")


def test_loopback_is_tried_before_anything_else() -> None:
    assert ordered(("192.168.1.5", "127.0.0.1"), OWN)[0] == "127.0.0.1"


def test_what_cannot_be_connected_to_is_dropped() -> None:
    assert ordered(("0.0.0.0", "224.0.0.251", "fe80::5", "::"), OWN) == ()


def test_equally_good_addresses_keep_the_order_they_came_in() -> None:
    assert ordered(("10.2.0.1", "10.1.0.1"), OWN) == ("10.2.0.1", "10.1.0.1")

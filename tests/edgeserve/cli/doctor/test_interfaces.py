"""What is said of an interface that mDNS cannot use; see also the real networks."""

from __future__ import annotations

import errno

import pytest

from edgeserve.cli.doctor.interfaces import Surroundings, findings
from edgeserve.cli.doctor.multicast import Heard, Listening
from edgeserve.mdns import HostInterface


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        (3, "net.ipv4.igmp_max_memberships is 3, so that mDNS is deaf on eth0"),
        (None, "a socket join no more networks, so that mDNS is deaf on eth0"),
    ],
)
def test_a_network_that_cannot_be_joined_is_named_with_the_limit_if_it_is_known(
    limit: int | None, why: str
) -> None:
    eth0 = HostInterface(name="eth0", index=2, ipv4="192.168.1.2")
    heard = Heard(listening=(Listening(place=eth0, joined=errno.ENOBUFS),))
    machine = Surroundings(
        roles=frozenset(("node",)), token=True, listed=False, heard=heard, limit=limit
    )

    (found,) = findings(machine)

    assert found.name == "multicast/igmp-limit"
    assert found.said.endswith(why)


def test_a_remedy_names_the_balancer_that_was_named() -> None:
    url = "http://nuc:8080"
    silent = Heard(
        listening=(
            Listening(
                place=HostInterface(name="eth0", index=2, ipv4="10.0.0.2"), echoed=True
            ),
        )
    )
    facts = Surroundings(
        roles=frozenset(("node",)),
        token=True,
        listed=False,
        heard=silent,
        url=url,
        vpn="wg0",
    )

    (found,) = findings(facts)
    assert found.remedy == f"edgeserve node start --balancer {url}"

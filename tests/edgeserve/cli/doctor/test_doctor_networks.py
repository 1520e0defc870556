from __future__ import annotations

import subprocess
import sys
import time
from email.utils import formatdate

import pytest
from aiohttp import ClientSession

from edgeserve.wire import PROTOCOL
from tests.edgeserve.cli.doctor.conftest import KEY, WHY_NOT, Ward
from tests.edgeserve.cli.doctor.examined import Doctor, false_balancer
from tests.edgeserve.cli.doctor.firewall import Way, drop_all
from tests.fleet.fleet import SECONDS, TOKEN, answer, until
from tests.fleet.network import Host, ip, network

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

OTHER_TOKEN = "another-token-of-another-fleet"


async def both_serve(ward: Ward) -> None:
    await until(lambda: "serves small" in ward.node.log, "the node serves")
    await until(ward.admin_key.exists, "the balancer serves")


async def test_in_a_sound_fleet_no_machine_has_a_problem(ward: Ward) -> None:
    await both_serve(ward)
    there = ("--url", ward.url, "--api-key-file", str(ward.admin_key))
    for process in (ward.node, ward.balancer):
        (process.folder / "config" / "token").chmod(0o600)
    # With folders of their own: the running process tells where its folders are.
    on_balancer = ward.doctor(ward.balancer.host, token=None)
    on_node = ward.doctor(ward.node.host, *there, token=None)

    for found in (on_balancer.examined(), on_node.examined()):
        assert found.problems == set(), found.out
        assert found.status == 0
        assert TOKEN not in found.out
        assert ward.admin_key.read_text().strip() not in found.out
        said = [each["found"] for each in found.findings]
        assert any("attic" in each for each in said), found.out


LISTEN = """
from edgeserve.cli.doctor.multicast import listen
print(*(each.place.name for each in listen(4.0).listening if each.others))
"""


async def test_where_nothing_runs_others_are_heard_on_their_interface(
    ward: Ward,
) -> None:
    await both_serve(ward)
    new = ward.fleet.network.host("new")
    ip("-n", new.namespace, "route", "add", "default", "dev", "eth0")
    argv = ("ip", "netns", "exec", new.namespace, sys.executable, "-c", LISTEN)
    heard = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS)

    assert heard.stdout.split() == ["eth0"], heard.stderr


async def test_what_the_balancer_refuses_is_found_by_its_name(ward: Ward) -> None:
    await both_serve(ward)
    host = ward.fleet.network.host("stray")
    wrong = ward.fleet.folder / "wrong-key"
    wrong.write_text("no-key-that-is-known")
    keyed = ("--api-key-file", str(wrong), "--url", ward.url)
    doctors = {
        "token/other": ward.doctor(host, "balancer", *keyed, token=OTHER_TOKEN),
        "token/missing": ward.doctor(host, "balancer", *keyed, token=None),
        "key/wrong": ward.doctor(host, "balancer", *keyed),
    }

    for name, doctor in doctors.items():
        found = doctor.examined()
        assert {name, "key/wrong"} <= found.problems, found.out
        assert found.status == 1
        assert TOKEN not in found.out
        assert OTHER_TOKEN not in found.out
        assert KEY not in found.out


async def test_another_clock_and_another_protocol_are_found(ward: Ward) -> None:
    host = ward.fleet.network.host("late")
    answers = {
        "/health": {"status": "ok"},
        "/edgeserve/v1/register": {"nonce": "a", "protocol": PROTOCOL + 1},
        "/v1/models": {"data": []},
    }
    an_hour_ago = formatdate(time.time() - 3600, usegmt=True)
    with false_balancer(ward.balancer.host, answers, an_hour_ago) as url:
        found = ward.doctor(host, "balancer", "--url", url).examined()

    assert {"clock/skew", "version/protocol"} <= found.problems, found.out
    assert "ahead of the balancer's" in found.of("clock/skew")["found"]


async def test_on_the_balancer_a_node_with_a_fault_is_found(ward: Ward) -> None:
    await both_serve(ward)
    net = ward.fleet.network
    elsewhere, old = net.host("elsewhere"), net.host("old")
    ip("-n", elsewhere.namespace, "link", "add", "eth1", "type", "veth")
    ip("-n", elsewhere.namespace, "addr", "add", "10.78.0.1/24", "dev", "eth1")
    ip("-n", elsewhere.namespace, "link", "set", "eth1", "up")
    flags = ("--name", "elsewhere", "--host", "10.78.0.1")
    node = ward.fleet.node(elsewhere, *flags, *ward.engine_flags)
    other = ward.fleet.node(old, "--name", "old", *ward.engine_flags)
    other.kill()
    (other.folder / "config" / "token").write_text(OTHER_TOKEN)
    other.start()
    await until(lambda: "serves small" in node.log, "it serves")
    await until(lambda: "serves small" in other.log, "it serves")

    found = ward.doctor(ward.balancer.host, token=None).examined()
    for each in (node, other):
        each.ask_to_stop()
        await each.ended()
    async with ward.fleet.asking(ward.url) as session:
        await answer(lambda: names(session, ward), {"attic"}.__eq__, "both are gone")

    assert {"nodes/wrong-interface", "token/other"} <= found.problems, found.out
    said = found.of("nodes/wrong-interface")["found"]
    assert "announces 10.78.0.1" in said
    assert elsewhere.address in said


async def names(session: ClientSession, ward: Ward) -> set[str]:
    async with session.get("/edgeserve/v1/nodes", headers=ward.as_admin) as got:
        return {str(each["name"] or each["url"]) for each in await got.json()}


async def test_a_revoked_node_is_found_on_both_machines(ward: Ward) -> None:
    await both_serve(ward)
    there = ("--url", ward.url, "--api-key-file", str(ward.admin_key))
    async with ward.fleet.asking(ward.url) as session:
        nodes = f"{ward.url}/edgeserve/v1/nodes"
        await session.post(f"{nodes}/attic/revoke", headers=ward.as_admin)
        on_balancer = ward.doctor(ward.balancer.host, token=None)
        on_node = ward.doctor(ward.node.host, *there, token=None)
        both = on_balancer.examined(), on_node.examined()
        await session.post(f"{nodes}/attic/allow", headers=ward.as_admin)

    for found in both:
        assert "nodes/revoked" in found.problems, found.out
        remedy = found.of("nodes/revoked")["remedy"]
        assert remedy.startswith("edgeserve nodes allow ")


def test_each_fault_of_multicast_is_found_on_its_interface(ward: Ward) -> None:
    net = ward.fleet.network
    off, limited = net.host("off"), net.host("limited")
    ip("-n", off.namespace, "link", "set", "dev", "eth0", "multicast", "off")
    limit = "sysctl -qw net.ipv4.igmp_max_memberships=0"
    doctors: dict[str, Doctor] = {
        "multicast/interface-off": ward.doctor(off, "balancer"),
        "multicast/igmp-limit": ward.doctor(limited, "balancer", before=limit),
    }

    for name, doctor in doctors.items():
        found = doctor.examined()
        assert name in found.problems, found.out
        assert "eth0" in found.of(name)["found"]
        assert found.of(name)["remedy"].startswith("sudo ")


async def test_a_machine_without_ipv4_hears_the_others(ward: Ward) -> None:
    await both_serve(ward)
    host = ward.fleet.network.host("modern")
    host.lose_address()
    await until(lambda: not tentative(host), "its link-local address can be used")
    found = ward.doctor(host, "balancer").examined()

    said = [str(each["found"]) for each in found.findings]
    assert any("heard on eth0: attic" in each for each in said), found.out
    assert any("attic answers at https://[fe80::" in each for each in said), found.out


def tentative(host: Host) -> bytes:
    command = ["ip", "-n", host.namespace, "-6", "addr", "show", "tentative"]
    return subprocess.run(command, capture_output=True, timeout=SECONDS).stdout


def test_a_firewall_is_found_in_either_direction(ward: Ward) -> None:
    hosts = {f"multicast/firewall-{way}": way for way in WAYS}
    doctors = dict[str, Doctor]()
    for name, way in hosts.items():
        host = ward.fleet.network.host(f"walled-{way}")
        try:
            drop_all(host, way)
        except OSError as error:
            pytest.skip(f"this kernel has no nftables: {error}")
        doctors[name] = ward.doctor(host, "balancer")

    for name, doctor in doctors.items():
        found = doctor.examined()
        assert name in found.problems, found.out
        assert "eth0" in found.of(name)["found"]


WAYS: tuple[Way, ...] = ("in", "out")


def test_a_silent_network_is_told_from_a_vpn_and_from_a_container(
    ward: Ward, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mark = tmp_path_factory.mktemp("marks") / "dockerenv"
    mark.touch()
    with network() as net:
        quiet, tunnelled, boxed = map(net.host, ("quiet", "tunnelled", "boxed"))
        net.drop_multicast()
        through_a_tunnel(tunnelled)
        doctors = {
            "multicast/silence": ward.doctor(quiet, "balancer"),
            "multicast/vpn": ward.doctor(tunnelled, "balancer"),
            "multicast/container": ward.doctor(boxed, "balancer", container=str(mark)),
        }
        found = {name: each.examined() for name, each in doctors.items()}

    for name, each in found.items():
        assert {name} == {p for p in each.problems if "multicast" in p}, each.out
        assert "--node http://" in each.of(name)["remedy"]


def through_a_tunnel(host: Host) -> None:
    here = ("-n", host.namespace)
    ip(*here, "tuntap", "add", "dev", "tun0", "mode", "tun")
    ip(*here, "addr", "add", "10.99.0.1/24", "dev", "tun0")
    ip(*here, "link", "set", "tun0", "up", "multicast", "off")  # as WireGuard's
    ip(*here, "route", "add", "default", "dev", "tun0")


def test_two_doctors_that_run_at_once_hear_each_other(ward: Ward) -> None:
    with network() as net:
        hosts = [net.host(name) for name in ("left", "right")]
        left, right = (ward.doctor(host, "balancer") for host in hosts)
        both = left.examined(), right.examined()

    for found, other in zip(both, reversed(hosts), strict=True):
        said = " ".join(str(each["found"]) for each in found.findings)
        assert f"the doctor on {other.address} is heard on eth0" in said

"""A name with the addresses of two balancers, by a name server on a host of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fleet.address.clients import asked
from tests.fleet.asking import client
from tests.fleet.fleet import SECONDS, Fleet, Process, answer, fleet
from tests.fleet.network import Host

NAME = "edgeserve.test"
URL = f"http://{NAME}:8080"
CLIENTS, FLOW = 8, 50
DNSMASQ = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    "PROXIES" not in os.environ or not DNSMASQ, reason="slow: make check-proxies"
)


@contextmanager
def named(server: Host, addresses: Sequence[str], folder: Path) -> Generator[None]:
    """Have a name server say that the name has these addresses."""
    argv = [str(DNSMASQ), "--keep-in-foreground", "--no-resolv", "--no-hosts"]
    argv += ["--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file="]
    argv += [f"--address=/{NAME}/{each}" for each in addresses]
    running = server.spawn(argv, {"PATH": os.environ["PATH"]}, folder / "dnsmasq.log")
    try:
        yield
    finally:
        running.terminate()
        running.wait(SECONDS)


async def test_clients_of_a_name_with_two_addresses_lose_nothing(
    fake_engine: list[str], tmp_path: Path
) -> None:
    with fleet(tmp_path) as here:
        attic = here.network.host("attic")
        hosts = [here.network.host(name) for name in ("first", "second")]
        here.node(attic, "--name", "attic", *fake_engine)
        one, two = (here.balancer(each, "--allowed-host", NAME) for each in hosts)
        here.client.has_file("resolv.conf", f"nameserver {attic.address}\n")
        with named(attic, [each.address for each in hosts], tmp_path):
            for each in (one, two):
                async with client(here, each) as ask:
                    await ask.serving("attic")
            clients = asked(here, URL, tmp_path / "counted", clients=CLIENTS,
                            seconds=15.0, model="small", retries=2)  # fmt: skip
            (await _used(here, one, two)).kill()
            count = await clients.counted()

    print(count)
    assert not count.lost, count.lost[:3]
    assert count.answered > CLIENTS


async def _used(here: Fleet, *balancers: Process) -> Process:
    """Return the balancer that most requests go to, once they flow."""

    async def answered() -> list[int]:
        counts = list[int]()
        for each in balancers:
            async with client(here, each) as ask:
                shown = await ask.requests()
            counts.append(sum(one["outcome"] == "answered" for one in shown))
        return counts

    counts = await answer(answered, lambda found: max(found) >= FLOW, "they flow")
    print(f"answered before, by each: {counts}")
    return balancers[counts.index(max(counts))]

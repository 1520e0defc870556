"""keepalived moves an address between two balancers on hosts of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fleet.address.clients import asked
from tests.fleet.asking import Json, client
from tests.fleet.fleet import ROOT, SECONDS, Process, answer, fleet, until
from tests.fleet.network import SUBNET, Host

SHIPPED = ROOT / "deploy" / "keepalived.conf"
ADDRESS = f"{SUBNET}.100"
URL = f"http://{ADDRESS}:8080"
CLIENTS = 8
KEEPALIVED = shutil.which("keepalived", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    "PROXIES" not in os.environ or not KEEPALIVED, reason="slow: make check-proxies"
)


@contextmanager
def keepalived(host: Host, folder: Path, priority: int) -> Generator[None]:
    """Run it on a host with the shipped configuration."""
    text = SHIPPED.read_text()
    for old, new in (
        ("192.168.1.30", ADDRESS),
        ("priority 100", f"priority {priority}"),
    ):
        assert old in text
        text = text.replace(old, new)
    folder.mkdir()
    (folder / "keepalived.conf").write_text(text)
    argv = [str(KEEPALIVED), "--dont-fork", "--log-console"]
    argv += ["--use-file", str(folder / "keepalived.conf")]
    argv += ["--pid", str(folder / "pid"), "--vrrp_pid", str(folder / "vrrp")]
    running = host.spawn(argv, {"PATH": os.environ["PATH"]}, folder / "log")
    try:
        yield
    finally:
        running.terminate()
        running.wait(SECONDS)


def has_it(host: Host) -> bool:
    argv = ["ip", "-n", host.namespace, "-o", "-4", "address"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    return f" {ADDRESS}/" in done.stdout


def answered(requests: list[Json]) -> bool:
    return any(each["outcome"] == "answered" for each in requests)


def power_cut(balancer: Process) -> None:
    balancer.host.unplug()
    balancer.kill()


@pytest.mark.parametrize("fails", [Process.kill, power_cut])
async def test_clients_that_ask_again_lose_nothing(
    fails: Callable[[Process], None],
    fake_engine: list[str],
    tmp_path: Path,
) -> None:
    with fleet(tmp_path) as here:
        attic = here.network.host("attic")
        hosts = [here.network.host(name) for name in ("first", "second")]
        here.node(attic, "--name", "attic", *fake_engine)
        one, two = (here.balancer(each) for each in hosts)
        with (
            keepalived(hosts[0], tmp_path / "a", 100),
            keepalived(hosts[1], tmp_path / "b", 90),
        ):
            for each in (one, two):
                async with client(here, each) as ask:
                    await ask.serving("attic")
            await until(lambda: has_it(hosts[0]) or has_it(hosts[1]), "it is taken")
            holder, other = (one, two) if has_it(hosts[0]) else (two, one)
            clients = asked(here, URL, tmp_path / "counted", clients=CLIENTS,
                            seconds=15.0, model="small")  # fmt: skip
            async with client(here, holder) as ask:
                await answer(ask.requests, answered, "it answers")
            failed = time.monotonic()
            fails(holder)
            await until(lambda: has_it(other.host), "it has moved")
            moved = time.monotonic() - failed
            count = await clients.counted()

    print(f"{fails.__name__}: moved in {moved:.1f} s; {count}")
    assert count.lost == []
    assert count.answered > CLIENTS

"""A roll-out as Kubernetes does it: real processes, found by a real name server.

Each node leaves DNS, drains, and returns at another address; each balancer gets a
successor on another host, and drains. Meanwhile clients ask on and on, and every answer
has to come whole.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.fleet.asking import Client
from tests.fleet.fleet import SECONDS, Fleet, Process, answer, fleet
from tests.fleet.llama_server import script
from tests.fleet.network import Host

pytestmark = [
    pytest.mark.skipif(
        "KUBERNETES_DIR" not in os.environ, reason="make check-kubernetes runs it"
    ),
    pytest.mark.timeout(500),
]

ZONE = "edgeserve-nodes.prod.svc.cluster.local"
FLAGS = ("--no-discover", "--node", "dns+srv://edgeserve-nodes.prod.svc")
CLIENTS, ATTEMPTS = 8, 3
BODY = {
    "messages": [{"role": "user", "content": "count"}],
    "max_tokens": 20,
    "ignore_eos": True,
}


@dataclass
class Zone:
    """The headless service: dnsmasq, and the nodes that it knows."""

    host: Host
    folder: Path
    places: dict[str, str] = field(default_factory=dict[str, str])
    server: subprocess.Popen[bytes] | None = None

    def publish(self) -> None:
        """Have the name server know these places and no others."""
        lines = ["no-resolv", "no-hosts", "port=53", "local-ttl=2", "local=/local/"]
        for name, address in self.places.items():
            lines += [
                f"host-record={name}.{ZONE},{address}",
                f"srv-host=_edgeserve._tcp.{ZONE},{name}.{ZONE},8090",
            ]
        config = self.folder / "dnsmasq.conf"
        config.write_text("\n".join(lines) + "\n")
        self.stop()
        argv = ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]
        argv += ["--user=root", "--group=root", "--pid-file="]
        env = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self.server = self.host.spawn(argv, env, self.folder / "dnsmasq.log")

    def stop(self) -> None:
        """Stop it."""
        if self.server:
            self.server.terminate()
            self.server.wait(SECONDS)


@contextmanager
def resolving(hosts: list[Host], zone: Zone) -> Generator[None]:
    """Give hosts the settings that Kubernetes gives a pod; ends the name server."""
    text = (
        f"nameserver {zone.host.address}\n"
        "search prod.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )
    for each in hosts:
        each.has_file("resolv.conf", text)
    try:
        yield
    finally:
        zone.stop()


@dataclass
class Service:
    """The balancers that take new requests, and what became of all requests."""

    made: Fleet
    endpoints: list[str] = field(default_factory=list[str])
    answered: int = 0
    retried: int = 0
    lost: list[str] = field(default_factory=list[str])
    over: bool = False
    turn: int = 0
    model: str = "small"

    async def ask(self, number: int) -> None:
        """Ask on and on, every second time for a stream."""
        async with self.made.asking("http://none") as session:
            while not self.over:
                await self._ask_once(session, stream=bool(number % 2))

    async def _ask_once(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        why, body = list[str](), {**BODY, "model": self.model, "stream": stream}
        for _ in range(ATTEMPTS):
            self.turn += 1
            at = self.endpoints[self.turn % len(self.endpoints)]
            try:
                url = f"http://{at}:8080/v1/chat/completions"
                async with session.post(url, json=body) as said:
                    got = await said.read()
            except (aiohttp.ClientError, OSError) as error:
                why.append(repr(error))
            else:
                whole = b"data: [DONE]" in got if stream else b"choices" in got
                if said.status == 200 and whole and b'"error"' not in got:
                    self.answered += 1
                    return
                why.append(f"{at}: {said.status} {got[-300:]!r}")
            self.retried += 1
        self.lost.append("; ".join(why))

    async def some_more(self) -> None:
        """Wait until each client has had another answer, as far as one can tell."""
        wanted = self.answered + 2 * CLIENTS
        async with asyncio.timeout(SECONDS):
            while self.answered + len(self.lost) < wanted:
                await asyncio.sleep(0.05)

    async def knows(self, balancer: Process, *names: str) -> None:
        """Wait until a balancer has these nodes ready."""
        at = f"http://{balancer.host.address}:8080"
        async with self.made.asking(at) as session:
            await Client(session).serving(*names)


@asynccontextmanager
async def load(service: Service) -> AsyncGenerator[None]:
    """Ask for the length of the block."""
    asking = [asyncio.create_task(service.ask(number)) for number in range(CLIENTS)]
    try:
        await service.some_more()
        yield
        await service.some_more()
    finally:
        service.over = True
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*asking)


async def test_a_roll_out_of_every_node_and_balancer_loses_no_request(
    tmp_path: Path, small: Path
) -> None:
    with fleet(tmp_path) as made:
        server = made.network.host("dns")
        nodes = [made.network.host(f"node-{number}") for number in range(3)]
        hosts = [made.network.host(f"balancer-{number}") for number in range(3)]
        zone = Zone(server, tmp_path, {each.name: each.address for each in nodes})
        with resolving(hosts, zone):
            await rolled(made, zone, nodes, hosts, engine_flags(tmp_path, small))


def engine_flags(folder: Path, model: Path) -> list[str]:
    """Flags for a node whose engine takes half a second for an answer."""
    engine = script(folder / "llama-server", "--decode", "20", "--length", "20")
    chosen = ["--llama-server", str(engine), "--model", str(model)]
    return [*chosen, "--slots", "4", "--no-advertise"]


async def rolled(
    made: Fleet, zone: Zone, nodes: list[Host], hosts: list[Host], flags: list[str]
) -> None:
    """Replace all nodes, then all balancers, under load."""
    names = [each.name for each in nodes]
    zone.publish()
    running = {at.name: made.node(at, "--name", at.name, *flags) for at in nodes}
    balancers = [made.balancer(at, *FLAGS) for at in hosts[:2]]
    service = Service(made)
    for each in balancers:
        await service.knows(each, *names)
    service.endpoints = [each.host.address for each in balancers]
    async with load(service):
        for number, name in enumerate(names):
            await node_rolled(zone, running[name], f"10.77.0.{100 + number}")
            for each in balancers:
                await service.knows(each, *names)
            await service.some_more()
        after_nodes = service.answered, service.retried
        fresh = made.balancer(hosts[2], *FLAGS)
        await balancer_rolled(service, balancers[0], fresh, names, leaves=True)
        after_leaving = service.retried
        again = balancers[0]
        again.start()
        await balancer_rolled(service, balancers[1], again, names, leaves=False)

    print(
        f"roll-out: {service.answered} answers, {len(service.lost)} lost; retried:"
        f" {after_nodes[1]} by 3 nodes, {after_leaving - after_nodes[1]} by a balancer"
        f" that leaves its Service first, {service.retried - after_leaving} by one"
        " that does not"
    )
    assert service.lost == []
    assert after_leaving == 0


async def node_rolled(zone: Zone, node: Process, address: str) -> None:
    """Stop a node and start it elsewhere, as the same node."""
    name = node.host.name
    del zone.places[name]
    zone.publish()
    node.ask_to_stop()
    assert await node.ended() == 0
    node.host.move_to(address)
    node.start()
    zone.places[name] = address
    zone.publish()


async def balancer_rolled(
    service: Service, old: Process, new: Process, names: list[str], *, leaves: bool
) -> None:
    """Have another balancer take the place of one."""
    await service.knows(new, *names)
    service.endpoints.append(new.host.address)
    await service.some_more()
    if leaves:  # `preStop` waits so long
        service.endpoints.remove(old.host.address)
        await asyncio.sleep(1)
    old.ask_to_stop()
    ended = asyncio.create_task(old.ended())
    if not leaves:
        await service.some_more()
        service.endpoints.remove(old.host.address)
    assert await ended == 0
    await service.some_more()


@asynccontextmanager
async def one_node(
    folder: Path, *flags: str
) -> AsyncGenerator[tuple[Service, Zone, Process]]:
    """Run one node and a balancer that has found it by DNS."""
    with fleet(folder) as made:
        server, at = made.network.host("dns"), made.network.host("node-0")
        host = made.network.host("balancer-0")
        zone = Zone(server, folder, {at.name: at.address})
        with resolving([host], zone):
            zone.publish()
            made.node(at, "--name", at.name, *flags)
            balancer = made.balancer(host, *FLAGS)
            service = Service(made, [host.address])
            await service.knows(balancer, at.name)
            yield service, zone, balancer


async def test_a_name_server_that_is_down_takes_no_node_away(
    tmp_path: Path, small: Path
) -> None:
    flags = engine_flags(tmp_path, small)
    async with one_node(tmp_path, *flags) as (service, zone, balancer):
        zone.stop()

        async def said() -> str:
            return balancer.log

        await answer(said, lambda log: "known nodes stay" in log, "it says so")
        async with load(service):
            pass

    assert service.lost == []


@pytest.mark.engine
async def test_a_real_engine_is_found_by_its_service_record(
    tmp_path: Path, smollm2: Path
) -> None:
    model = ("--model", str(smollm2), "--slots", "4", "--context", "512")
    flags = ("--engine", "bundled", "--threads", "1", *model, "--no-advertise")
    async with one_node(tmp_path, *flags) as (service, _, _):
        service.model = "smollm2-135m-instruct"
        async with load(service):
            pass

    assert service.lost == []

"""Following nodes over real connections: fake nodes behind cables that can be cut."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from balancer.discovery import events
from balancer.discovery.events import ReconnectPolicy, candidates, together
from balancer.fleet.members import Fleet
from edgeserve.http.sse import write_event
from edgeserve.http.types import Origin
from edgeserve.runtime import background
from tests.balancer.endpoint import CHAT, QUICK, chat, endpoint, eventually
from tests.fakes.cable import cable
from tests.fakes.node import HEARTBEAT_SECONDS, fake_node
from tests.fakes.reports import a_report, an_engine
from tests.fakes.tokens import TOKEN, GivenTokens
from tests.patience import PATIENCE


def states(fleet: Fleet) -> dict[str, str]:
    return {node.id: node.state for node in fleet.nodes}


def problems(fleet: Fleet) -> str:
    return " ".join(address.problem or "" for address in fleet.addresses.values())


def with_token(folder: Path) -> dict[str, Any]:
    (folder / "token").write_text(TOKEN)
    return {"token_file": folder / "token", "host": "127.0.0.1"}


def unused_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port: int = sock.getsockname()[1]
    return port


async def test_a_node_is_known_by_its_first_report() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        assert states(balancer.balancer.state.current.fleet) == {"pi": "up"}
        assert balancer.heard[1:] == ["pi joined (2 slots)"]


async def test_changes_of_an_engine_arrive() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        node.say(state="failed", reason="it crashed")

        await balancer.until(
            lambda fleet: fleet.nodes[0].report.engines[0].reason == "it crashed"
        )


async def test_a_full_report_replaces_what_was_known() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        engines = (an_engine("other:Q4_1"),)
        node.say(msgspec.structs.replace(node.report, engines=engines))

        await balancer.until(
            lambda fleet: fleet.nodes[0].report.engines[0].id == "other:Q4_1"
        )


async def test_a_change_of_a_report_leaves_the_rest_as_it_was() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        before = node.report
        node.send(write_event(b'{"problems":["the disk is full"]}', "change"))
        await balancer.until(lambda fleet: fleet.nodes[0].report.problems != ())

        (after,) = balancer.balancer.state.current.fleet.nodes
    assert after.report == structs.replace(before, problems=("the disk is full",))


async def test_a_node_that_breaks_its_stream_is_suspect_at_once_and_comes_back() -> (
    None
):
    async with fake_node() as node, endpoint(node) as balancer:
        seen = list[dict[str, str]]()
        current = balancer.balancer.state.current
        current.listen(lambda: seen.append(states(current.fleet)))

        node.hush()
        await balancer.until(lambda _: {"pi": "suspect"} in seen)

        await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})


async def test_a_mistake_of_ours_about_one_node_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The node is not trusted meanwhile: nothing follows it."""
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.01)
    async with fake_node() as node, endpoint(node) as balancer:
        current = balancer.balancer.state.current
        seen = list[dict[str, str]]()
        current.listen(lambda: seen.append(states(current.fleet)))

        with monkeypatch.context() as patched:
            patched.setattr(events, "readable_report", lambda *_: 1 / 0)
            node.say(node.report)
            await balancer.until(lambda _: {"pi": "suspect"} in seen)

        await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})

    assert caplog.text.count("background task 'node events") == 1


async def test_silence_is_noticed_though_the_connection_stands() -> None:
    quick = replace(QUICK, suspect=0.1)
    async with (
        fake_node() as node,
        cable(node.origin) as wire,
        endpoint(wire.url, pace=quick) as balancer,
    ):
        wire.freeze()
        await balancer.until(lambda fleet: states(fleet) == {"pi": "unreachable"})

        assert "silent" in problems(balancer.balancer.state.current.fleet)
        wire.thaw()
        await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})


async def test_heartbeats_are_enough_to_be_trusted() -> None:
    quick = replace(QUICK, suspect=20 * HEARTBEAT_SECONDS)
    async with fake_node() as node, endpoint(node, pace=quick) as balancer:
        await asyncio.sleep(1.2 * quick.suspect)

        assert balancer.heard[1:] == ["pi joined (2 slots)"]
        assert states(balancer.balancer.state.current.fleet) == {"pi": "up"}


async def test_a_lost_node_is_tried_again_until_it_is_back() -> None:
    async with (
        fake_node() as node,
        cable(node.origin) as wire,
        endpoint(wire.url) as balancer,
    ):
        wire.cut()
        await balancer.until(lambda fleet: states(fleet) == {"pi": "unreachable"})

        wire.mend()
        await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})
        assert balancer.heard[-1] == "pi joined (2 slots)"


async def test_another_protocol_is_named() -> None:
    async with (
        fake_node(protocol=99) as node,
        endpoint(node, wait=False) as balancer,
    ):
        await balancer.until(lambda fleet: "protocol 99" in problems(fleet))

        assert balancer.balancer.state.current.fleet.nodes == ()


async def test_a_node_with_another_token_is_named_and_gets_nothing(
    tmp_path: Path,
) -> None:
    async with (
        fake_node(tokens=GivenTokens("another-token-of-a-fleet")) as node,
        endpoint(node, wait=False, **with_token(tmp_path)) as balancer,
    ):
        await balancer.until(lambda fleet: "another fleet token" in problems(fleet))

        assert node.told == []


async def test_a_node_that_reports_the_id_of_another_is_refused(
    tmp_path: Path,
) -> None:
    async with (
        fake_node(tokens=GivenTokens(TOKEN), id="0" * 32) as node,
        endpoint(node, wait=False, **with_token(tmp_path)) as balancer,
    ):
        await balancer.until(lambda fleet: "not its certificate's" in problems(fleet))

        assert balancer.balancer.state.current.fleet.nodes == ()


async def test_a_node_that_proves_itself_serves(tmp_path: Path) -> None:
    async with (
        fake_node(tokens=GivenTokens(TOKEN)) as real,
        endpoint(real, **with_token(tmp_path)) as balancer,
    ):
        (node,) = balancer.balancer.state.current.fleet.nodes
        answer = await balancer.post(CHAT, chat())

        assert node.origin.id == real.report.id
        assert answer.status == 200


async def test_what_is_no_node_at_all_is_named() -> None:
    async with (
        fake_node() as node,
        endpoint(node.llama.origin, wait=False) as balancer,
    ):
        await balancer.until(lambda fleet: "404" in problems(fleet))


async def test_an_address_where_nothing_listens_is_named() -> None:
    async with endpoint("http://127.0.0.1:1", wait=False) as balancer:
        await balancer.until(lambda fleet: "127.0.0.1:1" in problems(fleet))


async def test_invalid_events_of_a_node_harm_no_other_node() -> None:
    async with (
        fake_node("pi") as node,
        fake_node("nuc") as other,
        endpoint(node, other) as balancer,
    ):
        node.send(b"event: report\ndata: {nonsense\n\n")
        await balancer.until(lambda fleet: fleet.addresses[node.url].state != "up")

        assert states(balancer.balancer.state.current.fleet)["nuc"] == "up"
        await balancer.until(lambda fleet: fleet.addresses[node.url].state == "up")


def test_pauses_double_to_a_limit_and_half_of_them_is_chance() -> None:
    least = ReconnectPolicy(suspect=1, forget=1, jitter=lambda: 0.0)
    most = ReconnectPolicy(suspect=1, forget=1, jitter=lambda: 1.0)

    assert [least.pause(n) for n in range(1, 7)] == [0.125, 0.25, 0.5, 1.0, 1.0, 1.0]
    assert [most.pause(n) for n in range(1, 7)] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert most.pause(10_000) == 2.0


class Leisurely(ReconnectPolicy):
    def pause(self, failures: int) -> float:  # noqa: ARG002 - always the same
        return 60.0


async def test_a_lost_node_that_is_seen_again_is_tried_at_once() -> None:
    pace = Leisurely(suspect=2.0, forget=60.0, starting=0.0)
    async with (
        fake_node() as node,
        cable(node.origin) as wire,
        endpoint(wait=False, pace=pace) as balancer,
    ):
        seen = {"url": wire.url}
        wire.cut()
        await balancer.post("/edgeserve/v1/register", seen)
        await balancer.until(
            lambda fleet: (
                [each.state for each in fleet.addresses.values()] == ["unreachable"]
            )
        )

        wire.mend()
        await balancer.post("/edgeserve/v1/register", seen)

        await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})


async def test_a_node_that_only_starts_later_is_no_fault() -> None:
    failures = list[float]()

    def jitter() -> float:
        failures.append(1.0)
        return 0.0

    patient = replace(QUICK, starting=PATIENCE, jitter=jitter)
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    async with endpoint(url, wait=False, pace=patient) as balancer:
        await eventually(lambda: len(failures) >= 2)
        async with fake_node(port=port):
            await balancer.until(lambda fleet: states(fleet) == {"pi": "up"})

    assert not any("cannot be used" in line for line in balancer.heard)


async def test_a_node_that_does_not_start_is_told_in_the_end() -> None:
    pace = replace(QUICK, starting=0.05)
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    async with endpoint(url, wait=False, pace=pace) as balancer:
        await eventually(
            lambda: any(f"{url} cannot be used" in line for line in balancer.heard)
        )


def test_a_problem_of_several_addresses_is_reported_once() -> None:
    no = "does not accept our fleet token"
    a, b, c = "http://192.168.1.20:8090", "http://[fd00::1]:8090", "http://pi:8090"

    said = together([(a, f"{a} {no}"), (b, f"{b} {no}"), (c, f"{c} is silent")])

    assert said == f"{a}, {b} {no}; {c} is silent"


def test_where_a_node_was_last_is_tried_beside_what_is_announced_in_its_name() -> None:
    key, here = "pi", Origin("10.0.0.1", 1)
    others = tuple(Origin(f"10.0.0.{number}", 1) for number in (8, 9))
    proven = structs.replace(here, id="its-id")
    fleet = Fleet().discovered(key, "mdns", (here,), "its-id")
    fleet = fleet.reported(key, proven, a_report(name="pi"))
    assert candidates(fleet.addresses[key]) == (proven,)

    fleet = fleet.discovered(key, "mdns", others, "another-id")

    first, second = (structs.replace(each, id="another-id") for each in others)
    assert candidates(fleet.addresses[key]) == (first, proven, second)

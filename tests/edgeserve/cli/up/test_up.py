import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from balancer.clients.keys import ClientKey
from balancer.clients.store import add_key, store_in
from edgeserve.cli.client import Endpoint
from edgeserve.cli.up.commands import asks
from edgeserve.cli.up.plan import model_flags, planned, port_near
from edgeserve.cli.up.serve_alone import (
    ChildEnded,
    Model,
    NotServing,
    Plan,
    serve,
    served,
)
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import Resolved, resolve
from edgeserve.errors import SettingsError
from tests.fakes.endpoint import MODELS, FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE

NODES = "/edgeserve/v1/nodes"

CHILD = """
import pathlib, signal, sys, time
told = []  # an Event would lock: its wait holds what its set, in the handler, needs
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
notes, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with notes.open("a") as file:
    print(name, "started", file=file)
while not told: time.sleep(0.01)
with notes.open("a") as file:
    print(name, "left", file=file)
"""


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint({"/v1/models": MODELS, NODES: []}) as running:
        yield running


def a_child(notes: Path, name: str) -> list[str]:
    return [sys.executable, "-c", CHILD, str(notes), name]


def a_plan(endpoint: FakeEndpoint, notes: Path, **changes: Sequence[str]) -> Plan:
    children = {"node": a_child(notes, "node"), "balancer": a_child(notes, "balancer")}
    node, balancer = (changes.get(name, argv) for name, argv in children.items())
    return Plan(
        node=node,
        balancer=balancer,
        place=Endpoint(endpoint.url),
        load_seconds=PATIENCE,
        grace=20,
    )


def ignore(_: Sequence[Model]) -> None:
    """Print no greeting."""


async def test_it_greets_with_what_is_served_and_ends_the_balancer_first(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    stop, notes = asyncio.Event(), tmp_path / "notes"
    greeted = list[Sequence[Model]]()

    await asyncio.gather(
        serve(a_plan(endpoint, notes), greeted.append, stop),
        _stop_when(notes, 2, stop),
    )

    assert greeted == [MODELS["data"]]
    assert notes.read_text().splitlines()[2:] == ["balancer left", "node left"]


async def _stop_when(notes: Path, lines: int, stop: asyncio.Event) -> None:
    """Set `stop` once the children have noted so many lines."""
    while not notes.exists() or len(notes.read_text().splitlines()) < lines:
        await asyncio.sleep(0.01)
    stop.set()


@pytest.mark.parametrize("name", ["node", "balancer"])
async def test_a_child_that_dies_ends_the_other_and_passes_its_status_on(
    name: str, endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    dying = [sys.executable, "-c", "import sys; sys.exit('no such file')"]
    plan = a_plan(endpoint, notes, **{name: dying})

    with pytest.raises(ChildEnded, match=f"the {name} ended with status 1") as raised:
        await serve(plan, ignore, asyncio.Event())

    assert raised.value.exit_status == 1
    started = notes.read_text().count("started") if notes.exists() else 0
    left = notes.read_text().count("left") if notes.exists() else 0
    assert left == started


async def test_a_child_that_will_not_leave_is_killed(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    notes, stop = tmp_path / "notes", asyncio.Event()
    deaf = CHILD.replace("lambda *_: told.append(True)", "signal.SIG_IGN")
    plan = a_plan(
        endpoint, notes, node=[sys.executable, "-c", deaf, str(notes), "node"]
    )
    quick = Plan(**{**vars(plan), "grace": 0.2})

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(serve(quick, ignore, stop), _stop_when(notes, 2, stop))

    assert "node left" not in notes.read_text()


async def test_a_model_that_never_loads_is_given_up(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    endpoint.answers["/v1/models"] = {"data": []}
    plan = a_plan(endpoint, tmp_path / "notes")

    with pytest.raises(NotServing, match="load_seconds"):
        await serve(
            Plan(**{**vars(plan), "load_seconds": 0.2}), ignore, asyncio.Event()
        )


def an_answer(state: str, *, problems: Sequence[str] = ()) -> list[object]:
    engine = {"id": "tiny", "state": state, "reason": "tiny.gguf is truncated"}
    engines = [engine] if state else []
    return [{"report": {"engines": engines, "problems": problems}}]


@pytest.mark.parametrize(
    ("answer", "hopeless"),
    [
        (an_answer("quarantined"), "tiny: tiny.gguf is truncated"),
        (an_answer("", problems=["no llama.cpp here"]), "see its message above"),
        (an_answer("quarantined", problems=["is no GGUF"]), "tiny.gguf is truncated"),
        (an_answer("loading"), None),
        (an_answer("failed"), None),
        ([{"report": None}], None),
        ([], None),
    ],
)
def test_only_a_model_that_will_never_be_served_ends_the_wait(
    answer: list[object], hopeless: str | None, endpoint: FakeEndpoint
) -> None:
    endpoint.answers.update({"/v1/models": {"data": []}, NODES: answer})

    if hopeless is None:
        assert served(Endpoint(endpoint.url)) == ()
    else:
        with pytest.raises(NotServing, match=hopeless):
            served(Endpoint(endpoint.url))


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (("available", "loading"), []),
        (("available", "loading", "loaded"), ["loaded"]),
        (("available",), ["available"]),
    ],
)
def test_the_welcome_waits_for_what_loads_but_not_for_what_need_not(
    states: tuple[str, ...], shown: list[str], endpoint: FakeEndpoint
) -> None:
    models = [{"id": state, "state": state} for state in states]
    endpoint.answers["/v1/models"] = {"data": models}

    assert [each["id"] for each in served(Endpoint(endpoint.url))] == shown


def test_a_balancer_that_does_not_answer_yet_serves_nothing_yet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    assert served(Endpoint(url)) == ()


def balancer_settings(port: int, origin: str) -> Resolved[BalancerSettings]:
    return Resolved(BalancerSettings(port=port), {"port": origin})


def test_a_usual_port_that_is_taken_gives_way_to_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        chosen = port_near(balancer_settings(port, "default"))

    assert port < chosen < port + 10


def test_a_port_that_was_asked_for_is_used_or_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SettingsError, match="the port is in use"),
    ):
        port_near(balancer_settings(taken.getsockname()[1], "--port"))


def test_node_and_balancer_never_get_one_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    assert port_near(balancer_settings(port, "default"), but=port) != port


def test_the_children_listen_on_loopback_alone(smollm2: Path) -> None:
    settings = resolve(NodeSettings, flags={"models": (str(smollm2),)}, environ={})

    plan = planned(settings, resolve(BalancerSettings, environ={}), None, None)

    for command in (plan.node, plan.balancer):
        assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--no-advertise" in plan.node
    assert "--no-discover" in plan.balancer


def test_where_clients_need_a_key_the_balancers_own_is_shown(tmp_path: Path) -> None:
    settings = BalancerSettings(state_dir=tmp_path)
    before = asks(settings)
    add_key(store_in(tmp_path), ClientKey(id="1f", name="laptop"))

    assert (before, asks(settings)) == (False, True)
    assert not asks(BalancerSettings(state_dir=tmp_path, anonymous=True))
    store_in(tmp_path).write_bytes(b"damaged")
    assert asks(settings)


def test_one_s_own_model_takes_the_place_of_the_default(tmp_path: Path) -> None:
    own = str(tmp_path / "a.gguf")
    Path(own).touch()

    assert model_flags(NodeSettings(models=(own,))) == ["--model", own]
    assert model_flags(NodeSettings(embedding_models=("e.gguf",))) == []


def test_a_model_in_the_models_folder_is_found_by_its_file_s_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.gguf").touch()

    flags = model_flags(NodeSettings(models=("a.gguf",), models_dir=tmp_path))

    assert flags == ["--model", "a.gguf"]


def test_a_file_that_is_not_there_is_refused_before_anything_starts(
    edgeserve: Terminal,
) -> None:
    seen = edgeserve("up", "--model", "/nowhere/a.gguf")

    assert seen.status == 2
    assert seen.err.startswith("edgeserve: there is no file /nowhere/a.gguf")


def test_a_known_name_becomes_its_file(smollm2: Path) -> None:
    settings = NodeSettings(models_dir=smollm2.parent)

    assert model_flags(settings) == ["--model", str(smollm2)]


def test_nothing_outlives_a_parent_that_is_killed_outright(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    script = """
import asyncio, sys
from edgeserve.cli.up.serve_alone import Plan, serve
from edgeserve.cli.client import Endpoint
_, url, python, child, notes = sys.argv
plan = Plan(node=[python, "-c", child, notes, "node"],
            balancer=[python, "-c", child, notes, "balancer"],
            place=Endpoint(url), load_seconds=90, grace=90)
asyncio.run(serve(plan, lambda _: print("serving", flush=True), asyncio.Event()))
"""
    notes = tmp_path / "notes"
    arguments = [endpoint.url, sys.executable, CHILD, str(notes)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"serving\n"
        _wait_for(notes, "started")

        os.kill(parent.pid, signal.SIGKILL)

    _wait_for(notes, "left")


def _wait_for(notes: Path, word: str) -> None:
    """Wait until both children have noted it; the test's own time limit bounds it."""
    while not notes.exists() or notes.read_text().count(word) < 2:
        time.sleep(0.01)

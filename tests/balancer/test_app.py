"""Start, drain and stop of a balancer, and its lines on the terminal."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balancer.app import running, serve
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import SettingsError
from edgeserve.http import bind
from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

COMMAND = (sys.executable, "-m", "edgeserve", "balancer", "start")
HEAVY = ("aiohttp", "zeroconf", "asyncio", "psutil", "uvloop")


async def test_draining_refuses_new_work_and_lets_the_old_end() -> None:
    one = Behaviour(slots=1)
    async with fake_node("pi", one) as node, endpoint(node) as balancer:
        state = balancer.balancer.state
        node.llama.freeze()
        asked = [balancer.post(CHAT, chat(max_tokens=4)) for _ in range(2)]
        running_and_waiting = [asyncio.ensure_future(each) for each in asked]
        await eventually(lambda: state.in_flight.inside == 2)

        draining = asyncio.ensure_future(state.in_flight.drained(PATIENCE))
        await eventually(lambda: state.in_flight.draining)
        refused = await balancer.post(CHAT, chat())
        health = await balancer.get("/health")

        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert (health.status, health.json["status"]) == (503, "draining")
        node.llama.thaw()
        assert await draining
        answers = await asyncio.gather(*running_and_waiting)
        assert [answer.status for answer in answers] == [200, 200]


async def test_draining_has_an_end() -> None:
    async with fake_node("pi", Behaviour(decode=1)) as node, endpoint(node) as balancer:
        state = balancer.balancer.state
        asked = asyncio.ensure_future(balancer.post(CHAT, chat()))
        await eventually(lambda: state.in_flight.inside == 1)

        assert not await state.in_flight.drained(0.05)
        asked.cancel()


async def test_an_idle_balancer_leaves_at_once() -> None:
    stop = asyncio.Event()
    stop.set()

    async with asyncio.timeout(PATIENCE):
        await serve(BalancerSettings(port=0, discover=False), stop)


async def test_a_port_in_use_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match="in use"):
            async with running(BalancerSettings(port=port, discover=False), say=print):
                pass


async def test_no_task_outlives_the_balancer() -> None:
    before = asyncio.all_tasks()

    async with fake_node() as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())

    assert asyncio.all_tasks() == before


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE
    )


def test_another_address_without_secrets_is_one_sentence_and_status_2() -> None:
    done = run("--host", "0.0.0.0", "--port", "0")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "edgeserve token new" in done.stderr


def test_another_address_with_a_token_still_needs_keys(tmp_path: Path) -> None:
    token = a_secret(tmp_path, "token", "token-of-the-fleet-1")

    done = run("--host", "0.0.0.0", "--port", "0", "--token-file", str(token))

    assert done.returncode == 2
    assert "edgeserve key new" in done.stderr


def test_a_wrong_setting_is_one_sentence_and_status_2() -> None:
    done = run("--attempts", "0")

    assert done.returncode == 2
    assert "attempts must be at least 1" in done.stderr


def test_help_imports_no_web_stack() -> None:
    code = (
        "import sys; from balancer.commands import balancer\n"
        "try: balancer(['start', '--help'])\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )

    assert "--node" in done.stdout
    assert done.stderr == "[]\n"


def test_sigterm_ends_it_with_status_0() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--no-discover"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "listening on http://127.0.0.1:" in process.stdout.readline()

        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()

"""A node and a balancer, as processes, on disks that are full, read-only or damaged."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from tests.edgeserve.damage import SECRET, Home, a_home, damage
from tests.fakes.tokens import report_of
from tests.patience import PATIENCE


def mount(folder: Path, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """A home on a small disk of its own, which only root can have."""
    if os.geteuid() or not mount(tmp_path, "size=8m"):
        pytest.skip("needs root to mount a small disk")
    try:
        yield a_home(tmp_path / "home")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(home: Home) -> None:
    with (home.root / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            pass


def lock(home: Home) -> None:
    disk = str(home.root.parent)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


WAYS = {"full": fill, "read-only": lock}


@contextmanager
def started(home: Home, *command: str) -> Generator[subprocess.Popen[str]]:
    """Run a command on that home."""
    argv = [sys.executable, "-m", "edgeserve", *home.words(*command)]
    environment = {**os.environ, "EDGESERVE_CONFIG_DIR": str(home.config)}
    with subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str], word: str) -> str:
    """Read its log until a word is said; the log so far."""
    assert process.stdout is not None
    said = ""
    until = time.monotonic() + PATIENCE
    while word not in said:
        line = process.stdout.readline()
        assert line, said
        assert time.monotonic() < until, said
        said += line
    return said


def left(process: subprocess.Popen[str]) -> str:
    """Let it leave; the rest of its log."""
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, rest
    return rest


NODE = ("node", "start", "--port", "0", "--no-advertise")
BALANCER = ("balancer", "start", "--port", "0", "--no-discover")


@pytest.mark.parametrize("fresh", [False, True], ids=["used", "fresh"])
@pytest.mark.parametrize("way", WAYS)
def test_a_node_starts_and_serves_there(home: Home, way: str, fresh: bool) -> None:
    if fresh:
        damage(home.state, "missing")
    WAYS[way](home)

    with started(home, *NODE) as node:
        said = heard(node, " serves a:F16") + left(node)

    assert "Traceback" not in said
    assert not fresh or str(home.state) in said


@pytest.mark.parametrize("way", WAYS)
def test_a_balancer_starts_and_leaves_there(home: Home, way: str) -> None:
    WAYS[way](home)

    trace = str(home.root / "day.jsonl")
    with started(home, *BALANCER, "--record", trace) as balancer:
        said = heard(balancer, "listening on") + left(balancer)

    assert "Traceback" not in said
    assert said.count("cannot write what was learned") == 1


@pytest.mark.parametrize("way", WAYS)
def test_keys_count_there_and_new_ones_are_refused_in_a_sentence(
    home: Home, way: str
) -> None:
    secret = "key-of-another-client"
    made = ClientKey(id=key_id(secret), name="phone", created=2.0)
    add_key(store_in(home.state), made)
    WAYS[way](home)

    with started(home, *BALANCER) as balancer:
        url = re.findall(r"listening on (\S+)", heard(balancer, "listening on"))[0]
        statuses = [status(url, each) for each in (secret, "key-of-a-stranger-here")]
        said = left(balancer)
    with started(home, "key", "revoke", "phone") as command:
        refusal, _ = command.communicate(timeout=PATIENCE)

    assert statuses == [200, 401], said
    assert "Traceback" not in said
    assert command.returncode == 1
    assert re.match(r"edgeserve: cannot use \S+clients.db: .*\n$", refusal), refusal


def status(url: str, key: str) -> int:
    ask = urllib.request.Request(
        f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(ask, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def until_started_anew(said: str) -> None:
    url = re.findall(r"listening on (\S+)", said)[0]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        (engine,) = asyncio.run(report_of(url, SECRET)).engines
        if engine.epoch > 1 and engine.state == "ready":
            return
        time.sleep(0.05)
    raise TimeoutError(said)


def test_an_engine_is_replaced_where_the_disk_fills_up_later(home: Home) -> None:
    damage(home.state / "engines" / "running" / "1.json", "missing")
    with started(home, *NODE) as node:
        said = heard(node, " serves a:F16")
        (record,) = (home.state / "engines" / "running").glob("*.json")
        fill(home)
        os.kill(int(record.stem), signal.SIGKILL)
        until_started_anew(said)
        said += left(node)

    assert "Traceback" not in said

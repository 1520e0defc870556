"""A Raspberry Pi, as far as qemu can be one: from nothing to a fleet, step by step.

`python -m tests.rootfs.arm64` starts a bare Debian for arm64, installs from wheels
alone, gets an answer, asks the doctor, has a service described, and joins a balancer of
another processor. A Pi 3, 4 or 5 has `--cpu cortex-a53`, `cortex-a72` or `cortex-a76`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from edgeserve.cli.up.welcome import Welcome
from tests.fleet.fleet import Process
from tests.fleet.network import Host
from tests.rootfs.base import base, impossible
from tests.rootfs.emulation import emulation
from tests.rootfs.lan import lan
from tests.rootfs.machine import LOGIN, Limits, Machine
from tests.rootfs.steps import (
    CLONE,
    REPOSITORY,
    Steps,
    content,
    curl_line,
    packages,
    repository,
)

MODEL = {"id": "smollm2-135m-instruct", "abilities": ["chat"]}
EDGESERVE = ".venv/bin/edgeserve"


def alone(pi: Machine, steps: Steps) -> None:
    """Install, answer, examine, and describe a service."""
    steps.type(pi, packages(), "")
    if pi.run("command -v cc gcc c++ clang", check=False).stdout:
        raise RuntimeError("there is a compiler, which would hide that one is needed")
    steps.type(pi, CLONE, "")
    up = steps.until(pi, "make up", "Ctrl-C stops it")
    answer = steps.type(pi, curl_line(up.said()))
    click.echo(f"          answer: {content(answer)!r}")
    up.interrupt()
    said = steps.type(pi, f"{EDGESERVE} doctor || true")
    click.echo("".join(f"          {line}\n" for line in said.splitlines()))
    said = steps.type(pi, f"{EDGESERVE} service install --dry-run")
    if "ExecStart=" not in said:
        raise RuntimeError(f"no unit is described: {said}")


def together(pi: Machine, nuc: Process, steps: Steps) -> None:
    """Join a balancer on this machine's own processor; an answer comes from the Pi."""
    url = f"http://{nuc.host.address}:8080"
    join = steps.until(
        pi,
        f"{EDGESERVE} join {url} --yes && exec {EDGESERVE} node start --balancer {url}",
        "approve ",
    )
    (approve,) = re.findall(r"run there: edgeserve (nodes approve \w+)", join.said())
    Process(nuc.host, nuc.folder, approve.split()).start()
    steps.wait(join, "registered with the balancer")
    listed = f"{EDGESERVE} models --url {url} | grep -q {MODEL['id']}"
    ready = f"until {listed}; do sleep 1; done"
    steps.type(pi, ready)
    answer = steps.type(pi, through(url))
    headers, body = re.split(r"\r?\n\r?\n", answer, maxsplit=1)
    if "x-edgeserve-node: pi" not in headers.lower():
        raise RuntimeError(f"another node has answered: {headers}")
    click.echo(f"          answer through the balancer: {content(body)!r}")
    join.interrupt()


def through(url: str) -> str:
    """Return the line that gets an answer from another machine."""
    line = Welcome(url=url, models=[MODEL], command="edgeserve").curl()
    return line.replace("curl -sS", "curl -sSi", 1)


@contextmanager
def balancer(host: Host, folder: Path) -> Generator[Process]:
    """Run a balancer of this machine's own processor, which has a token."""
    process = Process(host, folder, ["balancer", "start", "--approve", "--anonymous"])
    (folder / "config").mkdir()
    token = folder / "config" / "token"
    token.write_text("a-token-of-this-test-alone\n")
    token.chmod(0o600)
    process.start()
    try:
        yield process
    finally:
        process.lose_power()


def measure(cpu: str) -> None:
    """Run all, and print how long each step took."""
    root = base("arm64")
    with (
        emulation("arm64"),
        repository() as shared,
        tempfile.TemporaryDirectory() as scratch,
        lan() as net,
        net.machine(root, "pi", Limits(shares={shared: REPOSITORY})) as pi,
    ):
        folders = [Path(scratch) / each for each in ("logs", "nuc")]
        for folder in folders:
            folder.mkdir()
        steps = Steps(folders[0], {**LOGIN, "QEMU_CPU": cpu})
        alone(pi, steps)
        with balancer(net.network.host("nuc"), folders[1]) as nuc:
            together(pi, nuc, steps)
        click.echo(steps.table(["pi"]))


@click.command()
@click.option("--cpu", default="cortex-a72", show_default=True)
def main(cpu: str) -> None:
    """Run a Raspberry Pi under emulation, and time its first minutes."""
    if (reason := impossible("arm64")) is not None:
        sys.exit(reason)
    measure(cpu)


if __name__ == "__main__":
    main()

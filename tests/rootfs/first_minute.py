"""The first minute on bare machines: what the README says, typed and timed.

`python -m tests.rootfs.first_minute` starts a bare Debian, installs what the README
names, clones what is committed here and runs `make up` until the line that it prints
has an answer. A second bare machine then joins by what `up --lan` prints, and answers.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.rootfs.base import NATIVE, base, impossible
from tests.rootfs.lan import lan
from tests.rootfs.machine import Limits, Machine
from tests.rootfs.steps import (
    CLONE,
    REPOSITORY,
    SECONDS,
    Steps,
    content,
    curl_line,
    packages,
    repository,
)

MODEL = "smollm2-135m-instruct"


def alone(first: Machine, steps: Steps) -> None:
    """One machine, from nothing to an answer."""
    steps.type(first, packages(), "")
    steps.type(first, CLONE, "")
    up = steps.until(first, "make up", "Ctrl-C stops it")
    answer = steps.type(first, curl_line(up.said()))
    click.echo(f"          answer: {content(answer)!r}")
    up.interrupt()


def together(first: Machine, second: Machine, steps: Steps) -> None:
    """A second machine, from nothing to an answer that comes from it."""
    up = steps.until(first, "make up ARGS=--lan", "Ctrl-C stops it")
    said = up.said()
    (url,) = re.findall(r"address +(http\S+)/v1", said)
    steps.type(second, packages(), "")
    steps.type(second, CLONE, "")
    join = steps.until(second, f"make join ARGS='{url} --yes'", "approve ")
    (approve,) = re.findall(r"run there: edgeserve (nodes approve \w+)", join.said())
    steps.type(first, f".venv/bin/edgeserve {approve}")
    join.wait("listening on")
    steps.type(first, f".venv/bin/edgeserve pull {MODEL} --everywhere")
    began = time.monotonic()
    served = _answered_by(first, curl_line(said), second.name)
    click.echo(f"{time.monotonic() - began:6.1f} s  until an answer: {served!r}")
    join.interrupt()
    up.interrupt()


def _answered_by(machine: Machine, line: str, node: str) -> str:
    """Ask until a certain node answers, several at once; return the answer."""
    asking = line.replace("curl -sS", "curl -sS -D /dev/stderr", 1)
    burst = f"{asking} >/tmp/a$each 2>/tmp/h$each"
    script = f"cd edgeserve; for each in 1 2 3 4 5 6; do {burst} & done; wait; "
    script += f"grep -il 'x-edgeserve-node: {node}' /tmp/h?"
    deadline = time.monotonic() + SECONDS
    while True:
        found = machine.run(script, check=False).stdout.split()
        if found:
            return content(machine.run(f"cat /tmp/a{found[0][-1]}").stdout)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{node} answers nothing")


def measure() -> None:
    """Run both, and print the figures."""
    root = base()
    with repository() as shared, tempfile.TemporaryDirectory() as logs, lan() as net:
        limits = Limits(shares={shared: REPOSITORY})
        steps = Steps(Path(logs))
        with net.machine(root, "first", limits) as first:
            alone(first, steps)
            until_answer = steps.table(["first"])
            with net.machine(root, "second", limits) as second:
                together(first, second, steps)
                click.echo(f"\nto an answer: {until_answer}")
                click.echo(f"in all: {steps.table(['first', 'second'])}")


if __name__ == "__main__":
    if (reason := impossible(NATIVE)) is not None:
        sys.exit(reason)
    measure()

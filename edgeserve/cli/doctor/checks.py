"""Checks: the list of all, and how they run side by side.

A new check is a function from `Here` to findings, and one line in `CHECKS`: facts are
gathered at its edge, and judged by a pure function beside it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TypeVar

from edgeserve.cli.doctor.balancer import answers, findings, places
from edgeserve.cli.doctor.engine import engine, gpu
from edgeserve.cli.doctor.finding import Finding, unknown
from edgeserve.cli.doctor.folders import disk, settings, state, token
from edgeserve.cli.doctor.here import Here
from edgeserve.cli.doctor.interfaces import multicast
from edgeserve.cli.doctor.models import models, room
from edgeserve.cli.doctor.multicast import Heard, listen
from edgeserve.cli.doctor.nodes import listed, nodes
from edgeserve.cli.doctor.ports import ports
from edgeserve.cli.service.places import ROLES, Role
from edgeserve.errors import in_words

T = TypeVar("T")

Run = Callable[[Here], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """A check, and the roles of the machines that it is for."""

    run: Run
    roles: tuple[Role, ...] = ROLES


def balancer(here: Here) -> Iterator[Finding]:
    """Check the balancer, and what it says of the nodes."""
    for url, named in places(here):
        found = answers(here, url, named=named)
        yield from findings(found, sure=here.sure)
        yield from listed(here, found)


CHECKS: Mapping[str, Check] = {
    "settings": Check(settings),
    "engine": Check(engine, ("node",)),
    "gpu": Check(gpu, ("node",)),
    "models": Check(models, ("node",)),
    "memory": Check(room, ("node",)),
    "state": Check(state),
    "disk": Check(disk),
    "ports": Check(ports),
    "token": Check(token),
    "multicast": Check(multicast),
    "balancer": Check(balancer),
    "nodes": Check(nodes),
}
"""All checks, in the order in which they are shown."""


SECONDS = 9.0
"""After so long, what has not ended counts as unknown: a driver may hang."""


def run(here: Here, seconds: float = SECONDS) -> list[Finding]:
    """Run the checks of this machine's roles, all at once; their order is fixed.

    The logs of what they use are kept back: findings say the same.
    """
    logging.disable(logging.CRITICAL)
    end = time.monotonic() + seconds
    try:
        _in_thread(lambda: _listen(here))
        running = {
            name: _in_thread(partial(_run, name, each, here))
            for name, each in CHECKS.items()
            if here.roles & {*each.roles}
        }
        found = [
            finding
            for name, future in running.items()
            for finding in _result(name, future, end, seconds)
        ]
    finally:
        logging.disable(logging.NOTSET)
    return list(dict.fromkeys(found))


def _in_thread(call: Callable[[], T]) -> Future[T]:
    """Call in a thread that keeps no process alive, unlike those of a pool.

    `call` raises nothing.
    """
    future: Future[T] = Future()
    Thread(target=lambda: future.set_result(call()), daemon=True).start()
    return future


def _result(
    name: str, future: Future[list[Finding]], end: float, seconds: float
) -> list[Finding]:
    try:
        return future.result(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return [unknown(name, f"took more than {seconds:g} s, and was given up")]


def _listen(here: Here) -> None:
    try:
        here.heard.set_result(listen())
    except Exception as error:  # noqa: BLE001 - others wait for it
        here.heard.set_result(Heard(taken=in_words(error)))


def _run(name: str, check: Check, here: Here) -> list[Finding]:
    """Run one check; a fault of its own ends no other."""
    try:
        return list(check.run(here))
    except Exception as error:  # noqa: BLE001 - a doctor that fails helps least
        why = in_words(error) or type(error).__name__
        return [unknown(name, f"could not be checked: {why}")]

"""Clients in a process of their own, on the client's host, and what they counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.proxies.dying import Count
from tests.fleet.fleet import ROOT, Fleet, until


@dataclass
class Asking:
    """Clients that ask for a while."""

    running: subprocess.Popen[bytes]
    log: Path

    async def counted(self) -> Count:
        """Wait until they are done; return what became of their requests."""
        await until(lambda: self.running.poll() is not None, "the clients are done")
        return Count(**json.loads(self.log.read_text().splitlines()[-1]))


def asked(
    here: Fleet,
    url: str,
    log: Path,
    *,
    clients: int,
    seconds: float,
    model: str,
    retries: int = 5,
) -> Asking:
    """Have clients ask for so many seconds; an address takes some to move."""
    argv = [sys.executable, "-m", "tests.deploy.proxies.dying"]
    argv += [url, str(clients), str(seconds), model, str(retries)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return Asking(here.client.spawn(argv, env, log), log)

"""`edgeserve node start`, as if the node had its machine to itself.

Usage: python -m tests.bench.fleet.node OPTION...

The nodes of the benchmark share a machine. Each would take the work of the others for
that of its machine's owner, and an engine that is held back by stopping it in turns for
one that hangs.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from edgeserve.cli.main import main
from node.engines.process import Look, Process
from node.hardware import sample

_look = Process.look


def _running(self: Process) -> Look | None:
    found = _look(self)
    return found and replace(found, stopped=False)


if __name__ == "__main__":
    sample._load = lambda: 0.0
    Process.look = _running  # type: ignore[method-assign]
    main(["node", "start", *sys.argv[1:]])

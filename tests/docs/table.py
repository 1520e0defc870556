"""Table: how the machines of the pages differ here from a reader's. Keep it short.

Commands run as they are written. What cannot be here has a stand-in, with the reason.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND = Path(sys.executable).parent
"""Where `edgeserve` is."""

KEY = "key-…"
"""How the pages write the key that was made last."""

BACKGROUND = (
    *("edgeserve up", "edgeserve node start", "edgeserve balancer start"),
    *("edgeserve join", "llama-server", "vllm serve"),
)
"""Commands that go on while the page does: each has a terminal of its own."""

LOOKS = (
    *("edgeserve nodes", "edgeserve models", "edgeserve servers list"),
    *("edgeserve usage", "edgeserve requests"),
)
"""Commands that a reader gives again until the fleet is as the page shows it."""

MODELS = {
    "unsloth/Qwen3-4B-GGUF": "Qwen3-4B-Q4_K_M.gguf",
    "unsloth/Qwen3-0.6B-GGUF": "Qwen3-0.6B-Q4_K_M.gguf",
}
"""What the hub has: SmolLM2-135M under the names of models that no test can fetch."""

HUB = "hub"
"""A machine that stands for huggingface.co, which no test can reach."""

SCP = """#!/bin/sh
to="$DOCS_HOMES/${2%%:*}/${2#*:}"
mkdir -p "$to" && cp -p "$1" "$to"
"""

ENGINE = f"""#!/bin/sh
PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.docs.llama_server {{name}} "$@"
"""

PROGRAMS = {
    "llama-server": "it is compiled; the bundled engine is the same server",
    "scp": "there is no SSH server; it copies between the homes",
    "vllm": "it needs CUDA; `make check-servers` runs its build for CPUs",
}
"""Programs that have a stand-in, mostly the bundled engine, and why."""

NOT_HERE = {
    "aider": "1.3 GB of clients: `make check-clients` runs what the page shows",
    "edgeserve service install": "needs systemd; see tests/edgeserve/cli/service",
}
"""Commands that do not run here, and where they are tested."""


def environment(home: Path, model: Path) -> dict[str, str]:
    """Return the environment of a machine's user."""
    return {
        "PATH": f"{home / 'bin'}:{FOUND}:{os.environ['PATH']}",
        "HOME": str(home),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "DOCS_MODEL": str(model),  # for the programs that stand in for others
        "DOCS_HOMES": str(home.parent),
        "HF_ENDPOINT": f"http://{HUB}",
        # Several machines are on the few cores of this one.
        "EDGESERVE_NODE_THREADS": "1",
    }


def equip(home: Path, commands: str) -> None:
    """Put the programs that these commands need into the home folder of their user."""
    (home / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        if not re.search(rf"^{name} ", commands, re.MULTILINE):
            continue
        path = home / "bin" / name
        path.write_text(SCP if name == "scp" else ENGINE.format(name=name))
        path.chmod(0o755)

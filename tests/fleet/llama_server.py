"""The fake llama-server behind the real one's flags; `script` makes it a program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fakes import llama, rpc

ROOT = Path(__file__).parents[2]


def script(path: Path, *flags: str) -> Path:
    """Write a program that a node takes for llama-server; `flags` are the fake's."""
    path.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        '--version) echo "version: 1 (fa4e) with nothing inside"; exit ;;\n'
        '--list-devices) echo "Available devices:"; echo "  (none)"; exit ;;\n'
        "esac\n"
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.fleet.llama_server'
        f' "$@" -- {" ".join(flags)}\n'
    )
    path.chmod(0o755)
    return path


def main() -> None:
    """Translate the flags that the fake knows, and become it."""
    split = sys.argv.index("--")
    flags = argparse.ArgumentParser()
    flags.add_argument("--port")
    flags.add_argument("--parallel")
    flags.add_argument("--alias")
    flags.add_argument("--rpc", default="")
    given, _ = flags.parse_known_args(sys.argv[1:split])
    if given.rpc:
        rpc.attach(given.rpc)
    sys.argv[1:] = [
        *("--port", given.port),
        *("--slots", given.parallel),
        *("--model", given.alias),
        *sys.argv[split + 1 :],
    ]
    llama.main()


if __name__ == "__main__":
    main()

"""Original tokenizer: what transformers makes of a text, told by a child process.

`python -m edgeserve.cli.convert.original FOLDER [trust]` prints the tokens as JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from edgeserve.cli.convert.conversion import offline
from edgeserve.runtime.tether import tethered

HARD = (
    "It's 12345 degrees, na\u00efve \u65e5\u672c\u8a9e \U0001f642  two  blanks"
    "\n\n\tTab's END"
)
"""Contraction, digits, accents, other scripts, blanks: where tokenizers differ."""

SECONDS = 300.0
"""Time to import PyTorch and transformers; half a minute on a Pi."""


def original_tokens(folder: Path, *, trust_code: bool) -> list[int] | None:
    """Return the tokens of HARD; None where transformers cannot tell."""
    trust = ("trust",) if trust_code else ()
    command = (sys.executable, "-m", "edgeserve.cli.convert.original", str(folder))
    try:
        done = subprocess.run(
            tethered((*command, *trust)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=offline(),
            timeout=SECONDS,
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[int])
    except (subprocess.TimeoutExpired, msgspec.DecodeError, IndexError):
        return None


def main() -> None:
    """Print the tokens of HARD."""
    folder, *trust = sys.argv[1:]
    transformers: Any = importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=bool(trust)
    )
    sys.stdout.write(json.dumps(tokenizer.encode(HARD, add_special_tokens=False)))


if __name__ == "__main__":
    main()

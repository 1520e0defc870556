"""The hub at port 80 of its machine: one small model under other models' names."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.docs.table import HUB, MODELS
from tests.fakes.hub import a_hub


def main() -> None:
    """Answer until it is killed; the argument is the model's file."""
    content = Path(sys.argv[1]).read_bytes()
    with a_hub(("0.0.0.0", 80)) as hub:
        hub.url = f"http://{HUB}"
        hub.repos |= {repo: {file: content} for repo, file in MODELS.items()}
        print("answers", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

"""What the tests of `edgeserve pull` share: a repository, and what it left here."""

from pathlib import Path

from edgeserve.models.pull import arrival

MODEL = b"GGUF" + bytes(range(256)) * 2048
OTHER = b"GGUF" + bytes(range(255, -1, -1)) * 2048
REPO = "org/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"


def unfinished(models: Path) -> list[Path]:
    return sorted((models / arrival.UNFINISHED).iterdir())

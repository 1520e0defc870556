"""What `edgeserve quantize compare` measured of a file that lies beside its result."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeserve.errors import in_words
from edgeserve.files import read_json
from quantize.naming import stem
from quantize.quality import Comparison

log = logging.getLogger(__name__)


def divergence(file: Path) -> float | None:
    """Return a file's mean KL divergence from its base, in nats, where it was measured.

    A file of another size than the one that was measured is another file.
    """
    record = file.with_name(f"{stem(file)}.compare.json")
    try:
        found = read_json(record, Comparison)
        size = file.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("leaving out %s: %s; compare again", record, in_words(error))
        return None
    if (found.base.file, found.base.bytes) == (file.name, size):
        return 0.0
    for each in found.variants:
        if (each.file, each.bytes) == (file.name, size):
            return each.quality.divergence[0] if each.quality.divergence else None
    return None

"""Measure offload and serving on a machine with a GPU and a native build, in one go.

    python -m tests.bench.gpu.run FOLDER --seconds 560
    python -m tests.bench.gpu.run FOLDER --parts many,toolarge
    python -m tests.bench.gpu.run FOLDER --rehearse       on any machine, in a minute

FOLDER holds Llama-7B.Q4_K_M.gguf, Llama-7B.Q8_0.gguf and Llama-13B.Q4_K_M.gguf, which
`--make` writes. The build in use is measured.

Parts: many (32 streams in several settings beside llama-batched-bench), toolarge (all
layers where they cannot be), pergpu (an engine on each GPU), sweep (layers on the GPU),
cpu (without the GPU: threads that spin and that do not), tune (cpu after a tuning),
cpu8 (cpu with Q8_0).
Each result is a line of JSON at once, and a row of the table at the end; a part that
fails or that time does not allow is a row as well.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from pathlib import Path
from typing import Any

from tests.bench.gpu import parts
from tests.bench.gpu.parts import Bench
from tests.bench.gpu.scale import FULL, REHEARSAL, make, models

PARTS = {
    "many": parts.many,
    "toolarge": parts.too_large,
    "pergpu": parts.per_gpu,
    "sweep": parts.sweep,
    "cpu": parts.on_cpu,
    "tune": parts.after_tuning,
    "cpu8": parts.on_cpu_q8,
}
COLUMNS = ("part", "what", "streams", "total", "together", "one", "share", "note")


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.make:
        make(models(given.folder, rehearsal=False))
        return
    end = time.monotonic() + given.seconds
    rows: list[dict[str, Any]] = []

    def say(**row: object) -> None:
        rows.append(row)
        line = json.dumps(row)
        print(line, flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(line + "\n")

    bench = Bench(
        models=models(given.folder, rehearsal=given.rehearse),
        scale=REHEARSAL if given.rehearse else FULL,
        say=say,
        left=lambda: end - time.monotonic(),
        rehearsal=given.rehearse,
    )
    for name in given.parts.split(","):
        bench.part = name
        try:
            PARTS[name](bench)
        except Exception as error:  # noqa: BLE001 - the other parts are worth having
            traceback.print_exc()
            say(part=name, what="failed", note=str(error)[-300:])
    print("\n".join(table(rows)))


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("folder", type=Path)
    flags.add_argument("--parts", default=",".join(PARTS))
    flags.add_argument("--seconds", type=float, default=560.0)
    flags.add_argument("--out", type=Path, help="file for the lines of JSON")
    flags.add_argument("--make", action="store_true")
    flags.add_argument("--rehearse", action="store_true")
    return flags.parse_args()


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows in Markdown."""
    lines = ["", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = [_cell(row.get(name, "")) for name in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value).replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    main()

"""`make check-llama`: llama.cpp's own server tests, directly and through a fleet.

With `--through node` in front of a node alone; `--keep FOLDER` keeps what is fetched
and found there. Further arguments go to pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.conformance import standins, suite
from tests.conformance.verdict import Verdict, verdict

ROOT = Path(__file__).parents[2]
DIFFERS = Path(__file__).parent / "differs.toml"
LIMIT_SECONDS = 60
"""For one test; the whole is bounded by their number, and takes minutes."""


def main() -> int:
    """Run both at once, compare, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--through", choices=("balancer", "node"), default="balancer")
    parser.add_argument("--keep", type=Path)
    chosen, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        folder = (chosen.keep or Path(scratch)).absolute()
        found = compared(folder, chosen.through, rest)
    print(found.told())
    return 0 if found.fine else 1


def compared(folder: Path, through: str, rest: list[str]) -> Verdict:
    """Fetch what is not there yet, and run the tests twice, at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    tests = folder / "llama.cpp" / suite.TESTS
    if not tests.exists():
        suite.unpacked(folder)
    model = standins.made(folder / "models")
    known = tomllib.loads(DIFFERS.read_text())
    without = [f"--ignore=unit/{name}" for name in known["not_runnable"]]
    reasons = known["differs"] | known[f"differs_at_{through}"]
    whole = {f"unit/{test}": why for test, why in reasons.items()}
    running = {
        mode: started(mode, folder, model, ["unit", *without, *rest])
        for mode in ("direct", through)
    }
    direct, ours = (ended(process, folder, mode) for mode, process in running.items())
    found = verdict(direct, ours, whole)
    if found.unexplained:  # some of the tests judge how quickly a thing is done
        again = started(through, folder, model, sorted(found.unexplained))
        ours |= ended(again, folder, through)
    return verdict(direct, ours, whole)


def started(
    mode: str, folder: Path, model: Path, arguments: list[str]
) -> subprocess.Popen[bytes]:
    """Start pytest in a copy of its own: the tests write beside themselves."""
    work = folder / mode
    shutil.copytree(folder / "llama.cpp", work / "llama.cpp", dirs_exist_ok=True)
    tests = work / "llama.cpp" / suite.TESTS
    (tests / "tmp").mkdir(exist_ok=True)
    environ = {
        **os.environ,
        "CONFORMANCE_MODE": mode,
        "CONFORMANCE_MODEL": str(model),
        "CONFORMANCE_RESULTS": str(folder / f"{mode}.json"),
        "EDGESERVE_CONFIG_DIR": str(work / "config"),
        "EDGESERVE_STATE_DIR": str(work / "state"),
        "PYTHONPATH": str(ROOT),
    }
    with (folder / f"{mode}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-m", "not slow", "-v",
             "-p", "tests.conformance.plugin", "-p", "no:cacheprovider",
             f"--timeout={LIMIT_SECONDS}", "--tb=short", *arguments],
            env=environ, cwd=tests, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def ended(process: subprocess.Popen[bytes], folder: Path, mode: str) -> dict[str, str]:
    """Wait for it; return each test's outcome, as the plugin has written it."""
    # 0: all passed, 1: some did not, which is what we came to see.
    if process.wait() not in {0, 1}:
        log = (folder / f"{mode}.log").read_text(errors="replace")
        raise SystemExit(f"pytest failed:\n{log[-2000:]}")
    found: dict[str, list[str]] = json.loads((folder / f"{mode}.json").read_text())
    return {test: outcome for test, (outcome, _) in found.items()}


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from edgeserve.runtime.lifecycle import FORCED
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.patience import PATIENCE

NODE = (sys.executable, "-m", "edgeserve", "node", "start")


def refused(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    argv = [*NODE, *flags]
    return subprocess.run(
        argv, capture_output=True, text=True, env=env, timeout=PATIENCE
    )


@contextmanager
def started(tmp_path: Path, *flags: str) -> Generator[subprocess.Popen[str]]:
    """Run a node with a fake engine until the block ends."""
    model = a_model(tmp_path / "small-F16.gguf")
    fake = script(tmp_path / "llama-server", *flags)
    process = subprocess.Popen(
        [*NODE, "--port", "0", "--no-advertise", "--state-dir", str(tmp_path),
         "--model", str(model), "--llama-server", str(fake), "--name", "kitchen"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_a_line_says_that_the_node_is_ready_and_sigterm_ends_it(
    tmp_path: Path,
) -> None:
    with started(tmp_path) as node:
        assert node.stdout is not None
        first, who, line = (node.stdout.readline() for _ in range(3))
        node.send_signal(signal.SIGTERM)
        status = node.wait(PATIENCE)

    assert first.startswith("listening on http://127.0.0.1:")
    assert who.startswith("  for this machine only: no fleet token yet")
    assert line.startswith("kitchen at http://127.0.0.1:")
    assert "serves small:F16 (" in line
    assert status == 0


def test_a_second_signal_cuts_what_still_runs(tmp_path: Path) -> None:
    with started(tmp_path, "--decode", "20", "--length", "5000") as node:
        assert node.stdout is not None
        url = node.stdout.readline().split()[-1]
        assert "  for " in node.stdout.readline()
        assert "serves" in node.stdout.readline()
        request = Request(f"{url}/completion", b'{"prompt": "a", "stream": true}')
        with urlopen(request, timeout=PATIENCE) as answer:
            answer.readline()
            node.send_signal(signal.SIGTERM)
            while (
                b'"draining"' not in urlopen(f"{url}/health", timeout=PATIENCE).read()
            ):
                time.sleep(0.01)
            node.send_signal(signal.SIGTERM)
            status = node.wait(PATIENCE)

    assert status == FORCED


def test_help_imports_no_web_stack() -> None:
    heavy = "{'aiohttp', 'zeroconf', 'psutil', 'xllamacpp', 'gguf'}"
    code = (
        "import sys, node.commands\n"
        "try: node.commands.node(['start', '--help'])\n"
        f"except SystemExit: print({heavy} & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )

    assert done.stderr == "set()\n"
    assert "--model" in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--host", "0.0.0.0"), "edgeserve token new"),
        (("--port", "99999"), "node.port must be between 0 and 65535"),
        (("--slots", "many"), "slots"),
        (("--token-file", "/nowhere/token"), "/nowhere/token"),
        (("--host", "203.0.113.1", "--token-file", "TOKEN"), "no interface has"),
        (("--balancer", "kitchen"), "http://"),
        (("--state-dir", "/proc/nowhere"), "--state-dir"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    (tmp_path / "TOKEN").write_text("a-token-of-this-fleet")
    given = [str(tmp_path / each) if each == "TOKEN" else each for each in flags]
    done = refused(*given, EDGESERVE_STATE_DIR=str(tmp_path / "state"))

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1

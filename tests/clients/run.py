"""`make check-clients`: one real fleet, and the tests of each client against it.

Arguments: the folder of the clients' environments, and the clients; with `--serve` the
fleet runs until the end of the input, and its settings are printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgeserve.config.paths import models_dir
from edgeserve.models.download import DEFAULT, fetch
from edgeserve.models.synthetic import Shape, a_model
from tests.clients.conftest import Fleet
from tests.endpoint.conftest import started

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).parent
ON_DEMAND = "tiny"
START_SECONDS = 120.0
PYTEST = (
    *("-m", "pytest", "-q", "-rs", "-c", "/dev/null", "--confcutdir", str(TESTS)),
    *("-p", "no:cacheprovider", "--import-mode=importlib", "-W", "ignore"),
)
"""pytest without our settings, which name plugins that these environments lack."""

ENVIRONMENTS = {
    "sdk": ("openai", "anthropic", "ollama", "litellm", "langchain", "llm"),
    "aider": ("aider",),
    "home-assistant": ("home_assistant",),
    "open-webui": ("open_webui",),
}
"""The files of tests that run in each environment."""

KEYS = {"key": (), "admin": ("--admin",), "single": ("--at-once", "1")}


@contextmanager
def serving(home: Path) -> Generator[Fleet]:
    """Run a node and a balancer with keys, until the block ends."""
    model = fetch(DEFAULT, models_dir(), lambda _step, _done, _total: None)
    folder = home / "models"
    folder.mkdir()
    _with_tools(model, folder / model.name)
    a_model(folder / f"{ON_DEMAND}-F16.gguf", Shape(context=2048), name=ON_DEMAND)
    keys = {name: _new_key(name, flags, home) for name, flags in KEYS.items()}
    with ExitStack() as stack:
        node = stack.enter_context(
            started(
                "node", *("--model", model.name, "--embedding-model", model.name),
                *("--models-dir", str(folder), "--engine", "bundled", "--slots", "2"),
                *("--context", "4096", "--no-advertise"), home=home,
            )
        )  # fmt: skip
        url = stack.enter_context(
            started("balancer", "--no-discover", "--node", node, home=home)
        )
        free = stack.enter_context(
            started("balancer", "--no-discover", "--node", node, home=home / "open")
        )
        fleet = Fleet(url, open=free, **keys)
        _until_loaded(fleet)
        yield fleet


def _with_tools(model: Path, target: Path) -> None:
    """Write the model again with a chat template that knows tools."""
    template = ("--chat-template-file", str(TESTS / "tools.jinja"))
    subprocess.run(
        [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", *template,
         str(model), str(target)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip


def _new_key(name: str, flags: tuple[str, ...], home: Path) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "edgeserve", "key", "new", "--name", name, *flags],
        env={
            **os.environ,
            "EDGESERVE_CONFIG_DIR": str(home / "config"),
            "EDGESERVE_STATE_DIR": str(home / "balancer"),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout.strip()


def _until_loaded(fleet: Fleet) -> None:
    deadline = time.monotonic() + START_SECONDS
    models: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        models = fleet.get("/v1/models")["data"]
        able = {name for each in models for name in each.get("abilities", ())}
        states = [each.get("state") for each in models]
        if "loaded" in states and "embeddings" in able:
            return
        time.sleep(0.2)
    raise SystemExit(f"after {START_SECONDS:g} s: {models}")


def _environ(fleet: Fleet, cache: Path, home: Path) -> dict[str, str]:
    """Return the environment of the clients: their home is empty."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EDGESERVE_")}
    known = {f"CLIENTS_{name.upper()}": value for name, value in vars(fleet).items()}
    return {
        **kept,
        **known,
        "CLIENTS_JS": str(cache / "javascript"),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }


def _passes(client: str, cache: Path, environ: dict[str, str]) -> bool:
    """Run the tests of one environment."""
    print(f"== {client}", flush=True)
    if client == "javascript":
        argv = [
            "node",
            "--test",
            "--test-reporter=spec",
            *map(str, sorted((TESTS / "js").glob("*.mjs"))),
        ]
    else:
        python = cache / client / "bin" / "python"
        tests = [str(TESTS / f"test_{each}.py") for each in ENVIRONMENTS[client]]
        argv = [str(python), *PYTEST, *tests]
    return subprocess.run(argv, env=environ, cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """Run the clients' tests; the status is 1 where one fails."""
    cache, *clients = sys.argv[1:]
    with (
        tempfile.TemporaryDirectory(prefix="clients-") as home,
        serving(Path(home)) as fleet,
    ):
        environ = _environ(fleet, Path(cache), Path(home))
        if clients == ["--serve"]:
            print(
                *(f"export {k}={v}" for k, v in environ.items() if k[:8] == "CLIENTS_"),
                sep="\n",
                flush=True,
            )
            sys.stdin.read()
            return 0
        failed = [each for each in clients if not _passes(each, Path(cache), environ)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

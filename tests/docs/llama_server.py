"""The bundled engine behind the flags of `llama-server` and `vllm serve`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from edgeserve.wire import Launch
from node.engines.base import EngineSpec
from node.engines.bundled import PARAMETERS, bundled


def main() -> None:
    """Translate the flags that the pages show, and become the engine."""
    flags = argparse.ArgumentParser()
    flags.add_argument("-hf", "--hf-repo")
    flags.add_argument("--alias")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    given, other = flags.parse_known_args(sys.argv[2:])
    if sys.argv[1] == "vllm":
        given.alias, given.host = other[1], "0.0.0.0"
    spec = EngineSpec(
        id=given.alias,
        model=given.alias,
        variant=given.alias,
        path=Path(os.environ["DOCS_MODEL"]),
        role="generate",
        abilities=("chat", "completion"),
        launch=Launch(slots=2, context=2048, batch=128, threads=1),
    )
    command = bundled().command(spec, port=given.port, api_key="")
    wanted = json.loads(command.env[PARAMETERS]) | {"api_keys": []}
    wanted["hostnames"] = [given.host]
    env = {**os.environ, **command.env, PARAMETERS: json.dumps(wanted)}
    os.execve(command.argv[0], list(command.argv), env)  # noqa: S606  # no shell


if __name__ == "__main__":
    main()

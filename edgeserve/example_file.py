"""A settings file with every setting commented out: its help, its default. Pure."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from edgeserve.config import (
    BalancerSettings,
    NodeSettings,
    SharedSettings,
    in_order,
)

EXAMPLES: dict[str, Any] = {
    "announce_url": "http://192.168.1.20:8090",
    "api_key_file": "/etc/edgeserve/api-keys",
    "balancers": ["http://192.168.1.10:8080"],
    "cors_origins": ["https://chat.example"],
    "embedding_models": ["bge-small-en-v1.5-q8_0.gguf"],
    "host": "192.168.1.20",
    "llama_server": "/opt/llama.cpp/bin/llama-server",
    "models": ["smollm2-135m-instruct", "/srv/models/qwen2.5-1.5b-q4_k_m.gguf"],
    "models_dir": "~/.local/share/edgeserve/models",
    "name": "kitchen",
    "nodes": ["http://192.168.1.20:8090"],
    "record": "/var/log/edgeserve/trace.jsonl",
    "rerank_models": ["bge-reranker-v2-m3-q8_0.gguf"],
    "state_dir": "~/.local/state/edgeserve",
    "token_file": "/etc/edgeserve/token",
}
"""What stands for settings without a default, or with one of each machine's own."""

HEAD = """\
# Every setting of EdgeServe. What is commented out shows the default, or an example
# where it says so. This file is looked for where `edgeserve config show` says, or named
# by --config. The environment (EDGESERVE_NODE_SLOTS, EDGESERVE_LOG_LEVEL) and flags
# (--slots) win over it. Written by `edgeserve config example`.
"""

SHAPES = (SharedSettings, NodeSettings, BalancerSettings)


def example_file() -> str:
    """Return the file's text."""
    return "\n".join([HEAD, *(line for shape in SHAPES for line in _section(shape))])


def _section(shape: type[SharedSettings]) -> Iterator[str]:
    shared: set[str] = set()
    if shape is not SharedSettings:
        shared = {each.name for each in dataclasses.fields(SharedSettings)}
        yield f"[{shape.SECTION}]\n"
    for each in in_order(shape):
        if each.name not in shared:
            yield from _setting(each)


def _setting(each: dataclasses.Field[Any]) -> Sequence[str]:
    value = EXAMPLES.get(each.name, each.default)
    note = " For example:" if each.name in EXAMPLES else ""
    help_lines = textwrap.wrap(each.metadata["help"] + note, 86)
    # JSON writes strings, numbers, booleans and lists as TOML does.
    shown = json.dumps(value, ensure_ascii=False)
    return [*(f"# {line}" for line in help_lines), f"#{each.name} = {shown}\n"]

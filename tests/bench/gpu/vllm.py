"""A real vLLM for the length of a block, with random weights.

`site` is the folder of vLLM and what it needs; `tokenizer` one with a tokenizer and
configuration of a Llama model, whose shape is replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeserve.models.synthetic import Shape

READY_SECONDS = 330.0

GRAPHS = json.dumps({"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"})
"""CUDA graphs for decoding, without compiling anything at the start."""


def folder(at: Path, tokenizer: Path, shape: Shape) -> Path:
    """Write a model of that shape without weights, and return its folder."""
    at.mkdir(parents=True, exist_ok=True)
    for each in tokenizer.iterdir():
        if each.is_file():
            shutil.copy(each, at / each.name)
    given: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.embedding,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.embedding // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        "tie_word_embeddings": shape.tied,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (at / "config.json").write_text(json.dumps(given))
    return at


@contextmanager
def vllm(
    model: Path,
    site: Path,
    port: int,
    log: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Generator[subprocess.Popen[bytes]]:
    """Serve a folder as `lab` until the end of the block; waits until it is healthy.

    `env` is added to its environment. Several start side by side without `wait`; then
    `until_healthy` waits.
    """
    environ = {
        **os.environ,
        **(env or {}),
        "PYTHONPATH": str(site),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)),
        *("--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port)),
        *("--served-model-name", "lab", "--attention-backend", "TRITON_ATTN"),
        *("-cc", GRAPHS, "--max-model-len", "2048", *flags),
    ]
    with log.open("wb") as sink:
        child = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=environ, start_new_session=True
        )
    try:
        if wait:
            until_healthy(child, port, log)
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, 15)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()


def until_healthy(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until it serves. Raises RuntimeError with the end of its log."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return
        time.sleep(0.5)
    raise RuntimeError(f"vLLM is not ready:\n{log.read_text()[-3000:]}")

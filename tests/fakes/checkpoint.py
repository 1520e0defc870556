"""Hugging Face folders of tiny Llama models with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LAYERS, EMBEDDING, FEED_FORWARD, HEADS, VOCABULARY = 2, 64, 128, 2, 384

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": EMBEDDING,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant>"
)

TOKENIZER = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "chat_template": TEMPLATE,
}


def a_checkpoint(folder: Path, **config: object) -> Path:
    """Write config, weights and tokenizer; only the last one is not a real one."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer.model").write_bytes(b"a stand-in")
    safetensors(folder / "model.safetensors", weights())
    return folder


def weights() -> dict[str, NDArray[np.float32]]:
    """Return the tensors by their names in Hugging Face's form."""
    chance = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return chance.normal(0, 0.05, (rows, columns)).astype(np.float32)

    ones = np.ones(EMBEDDING, np.float32)
    made = {
        "model.embed_tokens.weight": matrix(VOCABULARY, EMBEDDING),
        "model.norm.weight": ones,
        "lm_head.weight": matrix(VOCABULARY, EMBEDDING),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            made[f"{at}.self_attn.{name}_proj.weight"] = matrix(EMBEDDING, EMBEDDING)
        for name in ("gate", "up"):
            made[f"{at}.mlp.{name}_proj.weight"] = matrix(FEED_FORWARD, EMBEDDING)
        made[f"{at}.mlp.down_proj.weight"] = matrix(EMBEDDING, FEED_FORWARD)
        made[f"{at}.input_layernorm.weight"] = ones
        made[f"{at}.post_attention_layernorm.weight"] = ones
    return made


def safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write a file of tensors: the length of its header, that, and the data."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)

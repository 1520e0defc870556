"""The model that stands in for those which llama.cpp's tests would download.

Random weights, but it writes letters: tests that want certain words of a story fail,
those that want text, counts, formats and errors do not.
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_letters, digits, punctuation

import gguf
import numpy as np
from numpy.typing import NDArray

from edgeserve.models.synthetic import Kind, Shape, a_model

MODEL = "tiny-F32.gguf"

SHAPE = Shape(
    layers=2, embedding=128, feed_forward=256, heads=4, kv_heads=2,
    vocabulary=512, context=8192,
)  # fmt: skip
"""As small as the stories260K that most tests want."""

LAST = SHAPE.vocabulary - 1
UNSPOKEN = 259
"""Tokens that are no letters: unknown, begin, end, and one for each byte."""

SPACE = "\u2581"
PAIRS = [first + second for first in "aeiou" for second in "lmnrst"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""One that llama.cpp knows without Jinja, too."""


def made(folder: Path) -> Path:
    """Write the one that stands in for all of them, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = a_model(folder / "raw.gguf", SHAPE, kind=Kind.F32)
    spelled(raw, folder / MODEL)
    raw.unlink()
    return folder / MODEL


def spelled(source: Path, target: Path) -> None:
    """Write a synthetic model again with letters for its words, and a template."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    letters = [SPACE, *ascii_letters, *digits, *punctuation]
    first = [SPACE + letter for letter in ascii_letters]
    changed = {"tokenizer.chat_template": TEMPLATE}
    for name, item in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = changed.get(name, item.contents())
        if name == "tokenizer.ggml.tokens":
            words = [*letters, *first, *PAIRS]
            queue = len(value) - UNSPOKEN
            value = [*value[:UNSPOKEN], *words[:queue], *value[UNSPOKEN + len(words) :]]
        inner = item.types[1] if len(item.types) > 1 else None
        writer.add_key_value(name, value, item.types[0], inner)
    for infill, token in enumerate(("pre", "suf", "mid")):
        writer.add_uint32(f"tokenizer.ggml.fim_{token}_token_id", LAST - infill)
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight":
            writer.add_tensor(tensor.name, muted(tensor.data))
            continue
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def muted(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make those tokens unlikely that are no letters, and that end an answer."""
    quiet = embeddings.copy()
    quiet[:UNSPOKEN] = 0
    quiet[-3:] = 0
    return quiet

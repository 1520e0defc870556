"""llama.cpp's converter and a real tokenizer; `make check-convert` installs them."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeserve.cli.convert.answer import TEXT
from edgeserve.cli.convert.conversion import NEEDED
from edgeserve.models.comparison import OWN_TEXT
from edgeserve.models.facts import read
from tests.fakes.checkpoint import TEMPLATE, VOCABULARY, a_checkpoint, weights
from tests.fakes.terminal import Terminal

TOPS = {name.partition(".")[0] for name in NEEDED}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        None in map(importlib.util.find_spec, TOPS),
        reason="needs the extra [convert], about 1 GB: make check-convert",
    ),
    # PyTorch and transformers warn of their own future in the child, SWIG in here.
    pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning"),
]


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder for all tests: the converter is fetched once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def folder(
    tmp_path: Path, state: Path, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A checkpoint with a tokenizer that was trained on the built-in text."""
    del edgeserve  # it sets folders, too
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(state))
    folder = a_checkpoint(tmp_path / "tiny")
    (folder / "tokenizer.model").write_bytes(trained())
    return folder


def trained() -> bytes:
    sentencepiece: Any = importlib.import_module("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(OWN_TEXT.read_text(encoding="utf-8").splitlines()),
        model_writer=written,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    return written.getvalue()


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_a_checkpoint_becomes_a_model_that_the_bundled_engine_answers_with(
    folder: Path, edgeserve: Terminal, kind: str
) -> None:
    seen = edgeserve("quantize", "convert", str(folder), "--type", kind)

    assert seen.status == 0, seen.err
    assert "  its tokens are the original tokenizer's\n  it answers '" in seen.out
    target = folder / f"tiny.{kind.upper()}.gguf"
    facts = read(target)
    assert (facts.architecture, facts.context) == ("llama", 512)
    assert facts.metadata["tokenizer.chat_template"] == TEMPLATE
    assert len(facts.tensors) == len(weights())
    assert kind.upper() in facts.kinds
    planned = edgeserve("quantize", "plan", str(target), "--machine", "pi5-8gb")
    assert planned.status == 0, planned.err


def test_no_number_is_changed_at_full_width(folder: Path, edgeserve: Terminal) -> None:
    assert edgeserve("quantize", "convert", str(folder), "--type", "f32").status == 0

    there = {
        each.name: each.data
        for each in gguf.GGUFReader(folder / "tiny.F32.gguf").tensors
    }
    ours = weights()
    for name, theirs in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
    ):
        assert np.array_equal(there[name], ours[theirs])


def test_an_architecture_that_llama_cpp_lacks_is_named(
    folder: Path, edgeserve: Terminal
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(architectures=["FooForCausalLM"], model_type="foo")
    (folder / "config.json").write_text(json.dumps(config))

    seen = edgeserve("quantize", "convert", str(folder))

    assert seen.status == 1
    assert "this llama.cpp cannot convert FooForCausalLM" in seen.err


def test_a_template_that_loses_the_message_costs_the_file_its_name(
    folder: Path, edgeserve: Terminal
) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for m in messages %}<{{ m.role }}>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    seen = edgeserve("quantize", "convert", str(folder))

    assert seen.status == 1
    assert "the chat template loses the message" in seen.err
    assert TEXT not in seen.out
    assert not list(folder.glob("*gguf*"))


def test_a_damaged_tokenizer_is_a_sentence(folder: Path, edgeserve: Terminal) -> None:
    (folder / "tokenizer.model").write_bytes(b"no tokenizer")

    seen = edgeserve("quantize", "convert", str(folder))

    assert seen.status == 1
    assert "the converter failed: " in seen.err
    assert "Traceback" not in seen.err

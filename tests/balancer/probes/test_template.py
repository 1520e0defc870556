"""Which chat templates can be relied on to continue an assistant message."""

from __future__ import annotations

import json

import pytest

from balancer.probes.template import TEXT, continues, probes


@pytest.mark.parametrize(
    ("asked", "lead"),
    [
        pytest.param("<|user|>Hi<|assistant|>", "<|user|>Hi<|assistant|>", id="plain"),
        pytest.param(
            "user\nHi\nassistant\n<think>\n",
            "user\nHi\nassistant\n<think>\n\n</think>\n\n",
            id="reasoning",
        ),
        pytest.param(
            "user\nHi\nassistant\n<think>\n</think>",
            "user\nHi\nassistant\n<think></think>",
            id="reasoning turned off",
        ),
        pytest.param("Hi<Bot><think>", "Hi<Bot></think>", id="no reasoning after all"),
        pytest.param(
            "Hi<|end|><|start|>assistant",
            "Hi<|end|><|start|>assistant<|channel|>final<|message|>",
            id="channels",
        ),
        pytest.param(
            "Hi\n<|begin|>\nHere are my reasoning steps:\n",
            "Hi\n<|begin|>\n\n[BEGIN FINAL RESPONSE]\n",
            id="words before the reasoning",
        ),
    ],
)
def test_these_lead_on(asked: str, lead: str) -> None:
    assert continues(asked, lead + TEXT)


@pytest.mark.parametrize(
    ("asked", "continued"),
    [
        pytest.param(
            "<|user|>\nHi<|end|>\n<|assistant|>\n",
            "<|user|>\nHi<|end|>\n<|endoftext|>assistant|>\n" + TEXT,
            id="a generation prompt cut in two",
        ),
        pytest.param("<|assistant|>", "<|assistant|>" + TEXT + "<|end|>", id="closed"),
        pytest.param("<|assistant|>", "<|assistant|>" + TEXT[:-1], id="trimmed"),
    ],
)
def test_these_do_not(asked: str, continued: str) -> None:
    assert not continues(asked, continued)


def test_the_probes_differ_in_the_words_of_the_assistant() -> None:
    asked, continued = (json.loads(each)["messages"] for each in probes())

    assert continued == [*asked, {"role": "assistant", "content": TEXT}]

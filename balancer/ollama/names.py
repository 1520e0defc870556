"""Names of Ollama's library, as names of models here. Pure.

Ollama writes the size after a colon, `llama3.2:1b`, where files have it in their name,
`llama-3.2-1b-instruct`. Only a name that nothing here has is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from balancer.fleet.engines import EngineCandidate
from edgeserve.openai import normal

TUNED = frozenset(("instruct", "chat", "it"))
"""Words that Ollama's names leave out: what it serves is tuned for chats."""

_LABEL = re.compile(r"[-:](I?Q\d\w*|FP?16|BF16|F32)$", re.IGNORECASE)
_WORDS = re.compile(r"[a-z]+|\d+(?:\.\d+)*(?:[bm](?![a-z]))?")


def resolved(
    name: str, candidates: Iterable[EngineCandidate], routes: Container[str]
) -> str:
    """Return the name of the model or variant that is meant; the same if in doubt."""
    key = normal(name)
    if (":" not in key and "/" not in key) or key in routes:
        return name
    found, exact = set[str](), set[str]()
    words, label = _parts(key.rpartition("/")[2])
    for each in candidates:
        if each.serves(key):
            return name
        model, variant = each.listed
        if label and variant.partition(":")[2] != label:
            continue
        has = _words(model)
        if has[: len(words)] == words and TUNED.issuperset(has[len(words) :]):
            (exact if has == words else found).add(variant if label else model)
    best = exact or found
    return best.pop() if len(best) == 1 else name


def _parts(name: str) -> tuple[list[str], str]:
    """Return the words of a name, and the label of a variant or an empty string."""
    label = _LABEL.search(name)
    if label is None:
        return _words(name), ""
    return _words(name[: label.start()]), label[1].upper().replace("FP16", "F16")


def _words(name: str) -> list[str]:
    return [each for each in _WORDS.findall(name.lower()) if each != "gguf"]

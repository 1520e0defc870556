"""Ollama's lists: models, loaded models and one model in Ollama's form. Pure.

Every name has a tag, as some clients look for `NAME:latest` where a name has none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from balancer.fleet.catalog import state_of
from balancer.fleet.engines import EngineCandidate

Json = dict[str, Any]

NEVER = "9999-12-31T23:59:59Z"
"""Nothing here leaves memory at a time that is known before."""

ABILITIES = {
    "chat": "completion",
    "completion": "completion",
    "tools": "tools",
    "vision": "vision",
    "embeddings": "embedding",
}
"""Ollama's names of abilities."""

PLAIN, WITH_TOOLS = "{{ .Messages }}", "{{ .Messages }}{{ .Tools }}"
"""Stand for the model's template, in which clients look for tools."""

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])")
_FAMILY = re.compile(r"[a-z]+(?=[\d.]*(?:-|$|:))|[a-z]+")


def tags(known: Mapping[str, Mapping[str, Any]]) -> list[Json]:
    """List what a client may call; a variant only where its model has several."""
    return [model_row(name, shown) for name, shown in _shown(known)]


def _shown(
    known: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, shown in known.items():
        model = known.get(shown.get("variant_of", ""))
        if model is None or len(model.get("variants", ())) > 1:
            yield name, shown


def model_row(name: str, shown: Mapping[str, Any]) -> Json:
    """Return a row of /api/tags."""
    variants = shown.get("variants") or [shown]
    created = datetime.fromtimestamp(shown.get("created", 0), UTC)
    return {
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": created.isoformat().replace("+00:00", "Z"),
        "size": max(each.get("memory", 0) for each in variants),
        "digest": digest(name, shown),
        "details": details(variants[0].get("name", name)),
    }


def loaded(
    candidates: Iterable[EngineCandidate], known: Mapping[str, Mapping[str, Any]]
) -> list[Json]:
    """List the loaded models of those that are known, as /api/ps does.

    A model is listed once, by its largest engine; by its variants if it has several.
    """
    largest = dict[str, EngineCandidate]()
    for each in sorted(candidates, key=lambda one: one.engine.memory):
        visible = not known.keys().isdisjoint(each.listed)
        if visible and state_of(each) == "loaded":
            largest[each.listed[1]] = each
    models = [each.listed[0] for each in largest.values()]
    return [
        _running(each, each.listed[models.count(each.listed[0]) > 1], known)
        for _, each in sorted(largest.items())
    ]


def _running(
    candidate: EngineCandidate, name: str, known: Mapping[str, Mapping[str, Any]]
) -> Json:
    engine = candidate.engine
    memory = engine.placement.memory if engine.placement else {}
    on_gpus = sum(size for device, size in memory.items() if device[:3] != "CPU")
    return {
        "name": tagged(name),
        "model": tagged(name),
        "size": engine.memory,
        "digest": digest(name, known.get(name, {})),
        "details": details(candidate.listed[1]),
        "expires_at": NEVER,
        "size_vram": on_gpus,
        "context_length": engine.context,
    }


def model_card(name: str, shown: Mapping[str, Any]) -> Json:
    """Return what /api/show says of a model."""
    row = model_row(name, shown)
    family = row["details"]["family"]
    abilities = shown.get("abilities", ())
    known = (ABILITIES[each] for each in abilities if each in ABILITIES)
    return {
        "modelfile": f"FROM {row['name']}\n",
        "parameters": "",
        "template": WITH_TOOLS if "tools" in abilities else PLAIN,
        "details": row["details"],
        "model_info": {
            "general.architecture": family,
            f"{family}.context_length": shown.get("context", 0),
        },
        "capabilities": list(dict.fromkeys(known)),
        "modified_at": row["modified_at"],
    }


def tagged(name: str) -> str:
    """Return a name with its tag."""
    return name if ":" in name else f"{name}:latest"


def digest(name: str, shown: Mapping[str, Any]) -> str:
    """Return what stands for a model: a hash of what is told of it, not of its files.

    Clients keep what they have learned of a model by its digest.
    """
    told = [name, shown.get("created"), *sorted(shown.get("abilities", ()))]
    return hashlib.sha256("\n".join(map(str, told)).encode()).hexdigest()


def details(name: str) -> Json:
    """Return what a name tells of a model."""
    model, _, label = name.partition(":")
    size = _SIZE.search(model)
    family = _FAMILY.match(model)
    named = family.group() if family else "unknown"
    return {
        "parent_model": "",
        "format": "gguf",
        "family": named,
        "families": [named],
        "parameter_size": f"{size[1]}{size[2].upper()}" if size else "",
        "quantization_level": label or "unknown",
    }

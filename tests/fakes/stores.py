"""Imitations of the folders in which other programs keep models."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

MODEL = "application/vnd.ollama.image.model"
PROJECTOR = "application/vnd.ollama.image.projector"
TEMPLATE = "application/vnd.ollama.image.template"


def lm_studio(home: Path, model: Path, name: str = "Tiny-Chat-Q8_0.gguf") -> Path:
    """Put a model where LM Studio does."""
    folder = home / ".lmstudio/models/maker/Tiny-Chat-GGUF"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(model, folder / name))


def blob_of(store: Path, content: Path | bytes) -> str:
    """Put a file into Ollama's store; return its digest."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(data)
    return f"sha256:{digest}"


def manifest(store: Path, name: str, *layers: tuple[str, str]) -> Path:
    """Write a manifest: HOST/NAMESPACE/MODEL/TAG, and kinds of layers with digests."""
    found: list[Any] = [
        {"mediaType": kind, "digest": digest, "size": 1} for kind, digest in layers
    ]
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": found}))
    return path


def ollama(home: Path, model: Path, *tags: str) -> Path:
    """Put a model where Ollama does, under these tags; return its blob."""
    store = home / ".ollama/models"
    digest = blob_of(store, model)
    for tag in tags:
        name = f"registry.ollama.ai/library/{tag.replace(':', '/')}"
        manifest(store, name, (TEMPLATE, blob_of(store, b"{{ }}")), (MODEL, digest))
    return store / "blobs" / digest.replace(":", "-")


def hub_cache(
    hub: Path, repo: str, name: str, model: Path, commit: str = "c0ffee"
) -> Path:
    """Put a file where huggingface_hub does; return the link in the snapshot."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    shutil.copy(model, folder / "blobs" / digest)
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    up = "../" * (2 + name.count("/"))
    link.symlink_to(f"{up}blobs/{digest}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return link

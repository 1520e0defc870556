"""Ollama's store: manifests by name, and files that are named by their content.

`manifests/HOST/NAMESPACE/MODEL/TAG` lists the layers of a model; each is a file
`blobs/sha256-…`. Nothing else of a manifest is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec

from edgeserve.models.adopt.checks import NotAdoptable, inside, noted, understood, why
from edgeserve.models.adopt.stores import Adoptable, Link
from edgeserve.models.facts import ModelFacts
from edgeserve.models.naming import PROJECTOR, named
from edgeserve.runtime.files import read_json

HOST, NAMESPACE, LATEST = "registry.ollama.ai", "library", "latest"
"""What Ollama leaves away where it shows a name."""

MODEL_LAYER = "application/vnd.ollama.image.model"
PROJECTOR_LAYER = "application/vnd.ollama.image.projector"
ADAPTER_LAYER = "application/vnd.ollama.image.adapter"

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")

OWN_TENSORS = ("v.", "a.", "mm.")
"""Begin of tensors for images and sounds; llama.cpp has them in a file of their own."""

DEPTH = 4
MOST_MANIFESTS = 10_000


class OllamaLayer(msgspec.Struct, frozen=True, rename={"kind": "mediaType"}):
    """One file of a model."""

    kind: str = ""
    digest: str = ""


class OllamaManifest(msgspec.Struct, frozen=True):
    """The files of a model."""

    layers: tuple[OllamaLayer, ...] = ()

    def of(self, kind: str) -> list[str]:
        """Return the digests of the layers of a kind."""
        return [each.digest for each in self.layers if each.kind == kind]


def ollama_models(root: Path, problems: list[str]) -> Iterator[Adoptable]:
    """Yield the models of Ollama's store; of several names of a file, the longest."""
    found = list[Adoptable]()
    for manifest in _manifests(root / "manifests", problems):
        with noted(problems):
            found.append(_model(root, manifest))
    found.sort(key=lambda each: (-len(each.links[-1].path.name), each.name))
    seen = set[Path]()
    for each in found:
        if (target := each.links[-1].target) not in seen:
            seen.add(target)
            yield each


def _manifests(folder: Path, problems: list[str]) -> Iterator[Path]:
    def unread(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {why(error)}")

    count = 0
    for here, folders, names in os.walk(folder, onerror=unread):
        folders.sort()
        depth = len(Path(here).relative_to(folder).parts) + 1
        if depth == DEPTH:
            folders.clear()
            for name in sorted(names):
                count += 1
                if not name.startswith("."):
                    yield Path(here, name)
        if count > MOST_MANIFESTS:
            problems.append(f"{folder}: has more than {MOST_MANIFESTS:,} manifests")
            return


def _model(root: Path, path: Path) -> Adoptable:
    place = path.relative_to(root / "manifests")
    manifest = read_json(inside(root, path), OllamaManifest)
    name = _shown(place)
    if not name.isprintable():
        raise NotAdoptable(f"Ollama's {name}: has a name that cannot be shown")
    models = manifest.of(MODEL_LAYER)
    if len(models) != 1 or manifest.of(ADAPTER_LAYER):
        raise NotAdoptable(f"Ollama's {name}: {_unlike(manifest)}")
    blob = _blob(root, path, models[0])
    facts = understood(blob)
    if reason := _not_for_llama(facts):
        raise NotAdoptable(
            f"Ollama's {name}: {reason}; `edgeserve pull` fetches one for llama.cpp"
        )
    file = _file_name(place)
    links = [Link(place_of(place) / f"{file}.gguf", blob)]
    for digest in manifest.of(PROJECTOR_LAYER)[:1]:
        own = place_of(place) / f"{PROJECTOR}-{file}.gguf"
        links.insert(0, Link(own, _blob(root, path, digest)))
    model, label = named(Path(links[-1].path), facts.type_label)
    return Adoptable(
        name=name,
        variant=f"{model}:{label}",
        size=sum(each.target.stat().st_size for each in links),
        links=tuple(links),
    )


def _unlike(manifest: OllamaManifest) -> str:
    if manifest.of(ADAPTER_LAYER):
        return "is a model with a LoRA adapter, of which llama.cpp would miss a half"
    if not manifest.of(MODEL_LAYER):
        return "has no GGUF file; it runs elsewhere, or with an engine of Ollama's own"
    return "consists of several files, which only Ollama can put together"


def _blob(root: Path, manifest: Path, digest: str) -> Path:
    found = _DIGEST.fullmatch(digest)
    if not found:
        raise NotAdoptable(f"{manifest}: has the impossible digest {digest[:80]!r}")
    blobs = inside(root, root / "blobs")
    return inside(blobs, blobs / f"sha256-{found[1]}")


def _not_for_llama(facts: ModelFacts) -> str:
    """Say why llama.cpp cannot load a file; "" where nothing is known against it."""
    import gguf  # brings numpy, which other commands need not load

    if facts.architecture not in gguf.MODEL_ARCH_NAMES.values():
        return (
            f"llama.cpp does not know its architecture, {facts.architecture!r}, which"
            " Ollama runs with an engine of its own"
        )
    if any(each.name.startswith(OWN_TENSORS) for each in facts.tensors):
        return (
            "what it needs for images or sounds is in the same file, which only"
            " Ollama's own engine can load"
        )
    return ""


def _shown(place: PurePath) -> str:
    """Return a name as Ollama shows it."""
    host, namespace, model, tag = place.parts
    above = [host] if host != HOST else []
    above += [namespace] if above or namespace != NAMESPACE else []
    return f"{'/'.join([*above, model])}:{tag}"


def place_of(place: PurePath) -> PurePath:
    """Return the folder of a model's links."""
    host, namespace, model, _ = place.parts
    return PurePath(*([host] if host != HOST else []), namespace, model)


def _file_name(place: PurePath) -> str:
    """Return a name for a model's file, from which its name on nodes follows."""
    model, tag = place.parts[-2:]
    model = re.sub(r"[-_.]gguf$", "", model, flags=re.IGNORECASE)
    return model if tag == LATEST else f"{model}-{tag}"

"""Checkpoint: a Hugging Face folder of config, weights in safetensors, and tokenizer.

Only the heads of the weights are read; what is missing or cut off is found in them
before anything is computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeserve.errors import CommandError, in_words
from edgeserve.runtime.files import read_json
from edgeserve.wire import MALFORMED

T = TypeVar("T")

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs"

TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "*.tiktoken",
)  # fmt: skip
"""Names of the files that hold a vocabulary; one of them is enough."""

LONGEST_HEAD = 2**27
"""Bytes of a head that is believed; the format itself allows 100 MB."""

BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5}
"""Types that a checkpoint can be converted to → bits of each weight."""

BESIDE_WEIGHTS = 2**25
"""Room for the metadata: vocabularies take up to some 20 MB."""


class NotACheckpoint(CommandError):
    """The folder cannot be converted as it is; the message says what it lacks."""

    exit_status = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole folder. `code` are the files in it that have Python loaded."""

    folder: Path
    tensors: int
    elements: int
    code: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name: the folder's, or the repository's in a cache of the hub."""
        if in_hub_cache(self.folder):
            return self.folder.parents[1].name.rpartition("--")[2]
        return self.folder.name

    def bytes_as(self, kind: str) -> int:
        """Return about how long the GGUF of this type will be."""
        return int(self.elements * BITS[kind] / 8) + BESIDE_WEIGHTS


def in_hub_cache(folder: Path) -> bool:
    """Whether the folder is a snapshot, which is named by a hash."""
    return folder.parent.name == "snapshots" and len(folder.parents) > 1


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder. Raises NotACheckpoint if it is not a whole one."""
    folder = folder.absolute()
    if not folder.is_dir():
        raise NotACheckpoint(f"{folder} is no folder; name the one with {CONFIG}")
    _refuse_without_config(folder)
    shards = [_shard_sizes(path) for path in _shards(folder)]
    if not any(any(folder.glob(name)) for name in TOKENIZERS):
        names = ", ".join(TOKENIZERS[:3])
        raise NotACheckpoint(f"{folder} has no tokenizer (none of {names}, …)")
    return Checkpoint(
        folder=folder,
        tensors=sum(map(len, shards)),
        elements=sum(sum(each) for each in shards),
        code=tuple(_loading_code(folder)),
    )


def _refuse_without_config(folder: Path) -> None:
    if (folder / CONFIG).is_file():
        _settings(folder / CONFIG)
        return
    if (folder / ADAPTER).is_file():
        raise NotACheckpoint(
            f"{folder} holds an adapter, no model; merge it into its base first"
        )
    if any(folder.glob("*.gguf")):
        raise NotACheckpoint(f"{folder} holds GGUF files, which need no conversion")
    raise NotACheckpoint(f"{folder} has no {CONFIG}; name the folder of the model")


def _settings(path: Path) -> Mapping[str, Any]:
    return _read(path, dict[str, Any])


def _read(path: Path, shape: type[T]) -> T:
    try:
        return read_json(path, shape)
    except OSError as error:
        raise NotACheckpoint(f"{path} cannot be read: {in_words(error)}") from error


def _shards(folder: Path) -> list[Path]:
    """Return the files of weights, by the index if there is one."""
    if os.path.lexists(folder / INDEX):
        named = _read(folder / INDEX, _Index).weight_map
        paths = [folder / name for name in sorted(set(named.values()))]
    else:
        paths = sorted(folder.glob("model*.safetensors"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise NotACheckpoint(
            f"{folder} lacks {_few(missing)} of its weights; fetch them, too"
        )
    if not paths:
        raise NotACheckpoint(_no_weights(folder))
    return paths


def _no_weights(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        return (
            f"{folder} has its weights only as pickles ({_few(pickles)}), which can run"
            " code when they are read; take the model's safetensors"
        )
    return f"{folder} has no weights (model*.safetensors)"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class _Tensor(msgspec.Struct):
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _shard_sizes(path: Path) -> list[int]:
    """Return the number of elements of each tensor; refuse a file that is cut off."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 0 < length <= LONGEST_HEAD:
            head = file.read(length)
        else:
            file.seek(0)
            head = b""
            if file.read(len(POINTER)) == POINTER:
                raise NotACheckpoint(
                    f"{path} is only Git's pointer to the weights; run `git lfs pull`"
                )
    try:
        entries = msgspec.json.decode(head, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        tensors = [msgspec.json.decode(each, type=_Tensor) for each in entries.values()]
    except MALFORMED as error:
        raise NotACheckpoint(f"{path} is damaged: {error}; fetch it again") from error
    wanted = 8 + length + max((each.data_offsets[1] for each in tensors), default=0)
    there = path.stat().st_size
    if there < wanted:
        raise NotACheckpoint(
            f"{path} is cut off: {there:,} of {wanted:,} bytes; fetch it again"
        )
    return [prod(each.shape) for each in tensors]


def _loading_code(folder: Path) -> Iterable[str]:
    """Yield the files that name Python to load, of the model or another repository."""
    for path in sorted(folder.glob("*config.json")):
        if _settings(path).get("auto_map"):
            yield path.name

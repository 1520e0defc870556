"""Caches: what slots hold, saved by nodes and sent from one to another. Pure.

A balancer names a conversation by a hash of its prompt; nodes know neither prompt nor
client.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import msgspec

from edgeserve.orders.pulls import Checksum, Peer

CACHES = "/edgeserve/v1/caches"
SAVE = f"{CACHES}/save"
TAKE = f"{CACHES}/take"

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8,64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class CacheFit(msgspec.Struct, frozen=True, kw_only=True):
    """What a saved state fits: engines for which all of this is the same.

    `content` is a hash of the model file, `build` llama.cpp's, `kv_type` the type of
    keys and values; flash attention lays out values in another way.
    """

    content: str
    build: str
    kv_type: str
    flash_attention: bool

    @property
    def digest(self) -> str:
        """All of it as one hash."""
        text = msgspec.json.encode(self)
        return blake2b(text, digest_size=8).hexdigest()


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """A saved state: what a slot held, as one file.

    `name` is the balancer's for the conversation. `pieces` are the CRC-32 of each
    `PIECE`, `sha256` proves the whole. `worth` is how many seconds an engine would
    need to read its `tokens` again; `saved` is when, in Unix seconds.
    """

    name: Hash
    fit: CacheFit
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Checksum
    pieces: tuple[int, ...]
    worth: Seconds = 0.0
    saved: float = 0.0

    @property
    def id(self) -> str:
        """Its name on every node."""
        return f"{self.name}-{self.fit.digest}"


class SaveSlot(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to save what a slot holds, if it has so many tokens.

    `epoch` is that of the engine that has read them. The node drops what it has of the
    states `instead`: earlier ones of the same conversation.
    """

    engine: str
    epoch: int
    slot: Count
    name: Hash
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    worth: Seconds = 0.0
    instead: tuple[str, ...] = ()


class TakeState(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to have a state, and to put it into a slot if an engine is named.

    What it does not have it fetches from `peers`.
    """

    state: SavedState
    peers: tuple[Peer, ...] = ()
    engine: str = ""
    epoch: int = 0
    slot: Count = 0


class TakenState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: the seconds that each step took."""

    tokens: int = 0
    fetched: float = 0.0
    verified: float = 0.0
    restored: float = 0.0

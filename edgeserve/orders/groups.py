"""Groups: one model over several machines, by llama.cpp's RPC backend. Pure.

The head has the file and runs `llama-server`; each worker runs `ggml-rpc-server` and
computes some of the layers. Their traffic goes through the channel between nodes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

FORM = "/edgeserve/v1/groups/form"
DISSOLVE = "/edgeserve/v1/groups/dissolve"
RPC = "/edgeserve/v1/groups/rpc"
"""A node's tunnel to its own worker, for the head of a group."""
LINK = "/edgeserve/v1/groups/link"
"""Asks a node to measure the network between it and another."""

Bytes = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class LayeredModel(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known of a model to split it.

    `layers` are the repeating ones, each of `layer_bytes`; `rest_bytes` are what the
    head keeps (embeddings, output). `kv_bytes` are for one token in all layers.
    `hidden_bytes` cross each link for one token. `context` is what it was trained for.
    """

    layers: int
    layer_bytes: Bytes
    rest_bytes: Bytes
    kv_bytes: Bytes
    hidden_bytes: Bytes
    context: int


class GroupWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A node that computes layers for a head. `share` is its share of the layers.

    `memory` is what it may take of it, in bytes; `urls` are where it was seen.
    """

    node: str
    name: str
    urls: tuple[str, ...]
    share: Share
    memory: Bytes


class GroupAbility(msgspec.Struct, frozen=True, kw_only=True):
    """What a node can do in groups, as head or worker; `NodeReport.rpc`.

    Members need the same `protocol`, ggml's RPC version, and the same `build`, where
    known. `memory` is what it could give to a group now, in bytes, GPUs included, once
    engines that may leave have left. `bytes_per_second` are weights that it reads in
    writing tokens, and `computing` operations/s in reading prompts, as it expects.
    `head`: it has a `llama-server` that can be one; `worker`: a `ggml-rpc-server`.
    """

    protocol: str
    build: str = ""
    memory: Bytes
    bytes_per_second: float
    computing: float = 0.0
    gpu: bool = False
    head: bool = True
    worker: bool = True


def group_id(variant: str) -> str:
    """Return the id of a group's engine, which its head reports."""
    return f"{variant}+group"


class FormGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to serve a variant of its disk as the head of a group.

    `share` is the head's own share of the layers; with those of the workers it makes 1.
    `context` is tokens per slot. A group of the same variant that exists ends first.
    `why` is for logs and reports. What the balancer expects is for the engine's report:
    tokens/s read and written, and the seconds of the load; 0 where it does not know.
    The engine's id is `group_id` of the variant.
    """

    variant: str
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    workers: Annotated[
        tuple[GroupWorker, ...], msgspec.Meta(min_length=1, max_length=15)
    ]
    slots: Annotated[int, msgspec.Meta(ge=1)] = 1
    context: Annotated[int, msgspec.Meta(ge=1)] = 4096
    why: str = ""
    reads: float = 0.0
    writes: float = 0.0
    load_seconds: float = 0.0


class DissolveGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a head to end the group of a variant, once its requests have ended."""

    variant: str
    why: str = ""


class MeasureLink(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to measure its link to another; see `GroupWorker` for `urls`."""

    node: str
    urls: tuple[str, ...]


class NodeLink(msgspec.Struct, frozen=True, kw_only=True):
    """The network between two nodes: seconds there and back, bytes/s; `wired` or not.

    Measured through the encrypted channel, as the group would use it.
    """

    round_trip: float
    bytes_per_second: float
    wired: bool = True


MemberState = Literal["starting", "up", "lost"]


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a group as its head sees it: the head itself, or a worker."""

    node: str
    name: str
    share: float
    state: MemberState = "starting"
    head: bool = False


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node computes for another's group.

    `memory` is what it was promised, in bytes.
    """

    head: str
    variant: str
    memory: int

"""Groups: one model over several machines, by llama.cpp's RPC backend. Pure.

The head has the file and runs `llama-server`; each worker runs `ggml-rpc-server` and
computes some of the layers. Their traffic goes through the channel between nodes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

FORM = "/edgeserve/v1/groups/form"
DISSOLVE = "/edgeserve/v1/groups/dissolve"
LINK = "/edgeserve/v1/groups/link"
"""Asks a node to measure the network between it and another."""
WORKERS = "/edgeserve/v1/groups/workers"
"""From node to node: be a worker of my group, for as long as this connection lasts."""
RPC = "/edgeserve/v1/groups/rpc"
"""From node to node: a tunnel to the worker that it has for me."""
ECHO = "/edgeserve/v1/groups/echo"
"""From node to node: take bytes and say so, to measure the network."""

MemberState = Literal["starting", "up", "lost"]

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


class GroupCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a node could give to a group, as head or worker, by its own estimates.

    `memory` is in bytes, GPUs included, once engines that may leave have left.
    `bytes_per_second` are weights that it reads in writing a token, `computing`
    operations/s in reading prompts. `head`: it has llama.cpp's server with RPC, and
    loads on demand; `worker`: it takes part in groups of others.
    """

    memory: Bytes
    bytes_per_second: float
    computing: float = 0.0
    head: bool = True
    worker: bool = True


def group_id(variant: str) -> str:
    """Return the id of a group's engine, which its head reports."""
    return f"{variant}@group"


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


class HostWorker(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to be a worker of a head; `rpc` is the head's version of RPC.

    Both then send a line each second: the worker's node a `HostedWorker`, the head a
    `Heartbeat`. The one that is silent counts as lost.
    """

    head: str
    name: str
    variant: str
    memory: Bytes
    rpc: str


class HostedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is, for its head: `why` it is lost, where it is.

    `key` opens tunnels to it; `devices` is how many llama.cpp sees there. `leaving`:
    its node shuts down once the head has let it go.
    """

    state: MemberState = "starting"
    why: str = ""
    key: str = ""
    devices: int = 1
    leaving: bool = False


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """From a head to a worker; `loaded` once all weights have been sent."""

    loaded: bool = False


class OpenTunnel(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a tunnel to the worker that has this key."""

    key: str


class NodeLink(msgspec.Struct, frozen=True, kw_only=True):
    """The network between two nodes: seconds there and back, bytes/s; `wired` or not.

    Measured through the encrypted channel, as the group would use it.
    """

    round_trip: float
    bytes_per_second: float
    wired: bool = True


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


def understand(head: str, worker: str) -> bool:
    """Whether a head and a worker with these versions of RPC can work together.

    Versions are `7.0.0`; "" is none. llama.cpp refuses another major one, and a worker
    that is newer than its head.
    """
    if not head or not worker:
        return False
    ours, theirs = head.split("."), worker.split(".")
    return ours[0] == theirs[0] and int(theirs[1]) <= int(ours[1])

"""Wire messages: the types that node and balancer send each other. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeVar, cast

import msgspec

from edgeserve.errors import BadRequest
from edgeserve.orders.caches import CacheFit
from edgeserve.orders.engines import DesiredModel, ModelProblem
from edgeserve.orders.groups import (
    GroupCapacity,
    GroupMember,
    LayeredModel,
    WorkerReport,
)
from edgeserve.orders.pulls import PullReport
from edgeserve.orders.servers import AdoptedServer
from edgeserve.reports.hardware import Hardware
from edgeserve.reports.sleep import Sleep
from edgeserve.served import Served

Json = dict[str, object]

PROTOCOL = 3
"""Version of these messages. A peer of another version is refused with both named."""

SERVICE = "_edgeserve._tcp.local."
"""The mDNS service type that nodes announce."""

VARIANT_HEADER = "x-edgeserve-variant"
"""Balancer to node: which engine to use, so that the node need not read the body."""

REQUEST_HEADER = "x-edgeserve-request-id"
"""Names one client request across balancer, node and log lines."""

BALANCER_HEADER = "x-edgeserve-balancer"
"""Balancer to node: which of several asks, so that each has its turn. Balancer to
balancer: all that a request has passed, so that one sees a request that comes back."""

EngineState = Literal[
    "absent", "loading", "ready", "busy", "leaving", "stuck", "failed", "quarantined"
]
"""`absent`: on the disk, loads when it is asked for. `busy`: ready, every slot taken.
`leaving`: running requests finish, then it is absent. `failed` will be restarted,
`quarantined` not."""

Ability = Literal[
    "chat", "completion", "embeddings", "rerank", "tools", "vision", "audio"
]
"""`tools`: the model's chat template has them, so that tool calls can be required."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting an engine was started with; learned speeds are keyed by it.

    `context` is tokens per slot; `batch` is tokens per decode call, which bounds how
    long a cancellation can take; `ubatch` is tokens per computation, 0 for as many as
    `batch`; `threads_batch` is threads for several tokens at once, 0 for as many as
    `threads`; `spin` is how often an idle thread looks for work before it sleeps, 0 for
    the usual; `gpu_layers` is -1 for all. `speculative` is llama.cpp's `--spec-type`;
    `draft` is the variant that guesses `draft_tokens` ahead, where a model does.
    `tensor_split` is each GPU's share, `overrides` llama.cpp's `-ot` text, `devices`
    the GPUs to use, all of them if empty. `workers` are the nodes that compute with it
    as a group: llama.cpp's devices `RPC0`, `RPC1`, … in that order.
    """

    slots: int
    context: int
    batch: int
    ubatch: int = 0
    threads: int
    threads_batch: int = 0
    spin: int = 0
    gpu_layers: int = 0
    kv_type: str = "f16"
    flash_attention: bool = True
    speculative: str = ""
    draft: str = ""
    draft_tokens: int = 0
    cache_ram_mib: int = 0
    tensor_split: tuple[float, ...] = ()
    overrides: str = ""
    main_gpu: int = 0
    devices: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model was placed: layers on GPUs, and bytes per llama.cpp device."""

    gpu_layers: int
    layers: int
    memory: dict[str, int]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens/s of one stream, reading and writing, as predicted before any request."""

    read: float
    write: float


Ended = Literal["", "died", "killed"]


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """One engine as its node sees it.

    `id` is unique on the node and survives restarts of the engine; `epoch` grows with
    every (re)start, so that a reader knows when a prefix cache was lost. `variant` is
    the full name, `model:LABEL`; `file` the model file's, where there is one. `reason`
    is the reason for the state. `expected` is None where the node has no prediction.
    `ended` is about its last process that ended: `killed` from outside, or `died` of an
    error of its own. `memory_limit`: bytes past which its node ends it; 0 for none.

    `memory` is what it needs, in bytes, GPUs included. `load_seconds` is how long its
    last load took, or an estimate; `progress` the share of a load that is done, 0 to 1.
    `created` is the time of its file, in Unix seconds. A `pinned` engine stays loaded.
    `evicts` are the ids of the engines that would have to leave for it.
    `last_resort`: only for requests that nothing else can serve.

    A `server` is no node's engine but a model of a server that the balancer asks by
    itself; `served` has what is particular to it. Its `context` is 0 where it is
    unknown. `group` are the members of a group, if it is served by several machines;
    `layered` is what a model of one file can be split by. `saves` is what states of its
    slots fit; None where it saves none.
    """

    id: str
    model: str
    variant: str
    file: str = ""
    state: EngineState
    reason: str | None = None
    slots: int
    busy: int = 0
    context: int
    abilities: tuple[Ability, ...]
    kind: Literal["native", "bundled", "fake", "server"]
    build: str = ""
    epoch: int = 0
    launch: Launch
    placement: Placement | None = None
    expected: Expected | None = None
    ended: Ended = ""
    memory_limit: int = 0
    memory: int = 0
    load_seconds: float = 0.0
    progress: float | None = None
    created: int = 0
    pinned: bool = False
    evicts: tuple[str, ...] = ()
    last_resort: bool = False
    served: Served | None = None
    group: tuple[GroupMember, ...] = ()
    layered: LayeredModel | None = None
    saves: CacheFit | None = None


class AvailableModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a node's disk without an engine: the reason, and what would help.

    `layered` is for one that does not fit here, and that a group could serve;
    `abilities` and `created` are then as in `EngineReport`.
    """

    model: str
    variant: str
    file: str
    reason: str
    remedy: str
    layered: LayeredModel | None = None
    abilities: tuple[Ability, ...] = ()
    created: int = 0


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node reports to a balancer. `id` survives restarts and new addresses.

    `instance` is random in every process: two nodes with one id, such as a cloned disk
    and its original, differ in it. `problems` say why the node serves less than its
    settings ask, `slowed` why it is slower than it could be. `failures` counts, by
    name, how often background tasks have failed since its start. `desired` is what the
    node was told about models, `unmet` what of it is not so. `servers` are those that
    it relays to, `workers` what it computes for groups of others. `rpc` is its version
    of llama.cpp's RPC, "" where it can be neither head nor worker of a group;
    `capacity` what it could give to one. `sleep` is None where its machine must not
    sleep.
    """

    protocol: int = PROTOCOL
    id: str
    instance: str = ""
    name: str
    version: str
    state: Literal["up", "draining"]
    port: int
    hardware: Hardware
    engines: tuple[EngineReport, ...] = ()
    problems: tuple[str, ...] = ()
    slowed: tuple[str, ...] = ()
    available: tuple[AvailableModel, ...] = ()
    desired: tuple[DesiredModel, ...] = ()
    unmet: tuple[ModelProblem, ...] = ()
    pulls: tuple[PullReport, ...] = ()
    servers: tuple[AdoptedServer, ...] = ()
    workers: tuple[WorkerReport, ...] = ()
    rpc: str = ""
    capacity: GroupCapacity | None = None
    sleep: Sleep | None = None
    failures: dict[str, int] = {}


CHANGES = "changes"
"""In the query of the event stream: the follower understands `change` events."""


class EngineChange(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's new report, sent between full reports."""

    engine: EngineReport


def difference(before: NodeReport, now: NodeReport) -> Json | None:
    """Return the fields of a report that changed, by name; None for another process.

    Followers of the previous release do not ask for these, and get whole reports.
    """
    if (before.id, before.instance) != (now.id, now.instance):
        return None
    return {
        name: getattr(now, name)
        for name in NodeReport.__struct_fields__
        if getattr(now, name) != getattr(before, name)
    }


T = TypeVar("T")

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding JSON; the last one for too deep nesting."""


def encode(value: object) -> bytes:
    """Turn a value into JSON; bytes that are no text, as in file names, become `?`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_readable(msgspec.to_builtins(value)))


_LASTING = frozenset(("protocol", "id", "instance"))
"""What a process keeps, and a change cannot claim."""


@cache
def _field_types() -> dict[str, Any]:
    fields = msgspec.structs.fields(NodeReport)
    return {each.name: each.type for each in fields if each.name not in _LASTING}


def changed(report: NodeReport, body: bytes) -> NodeReport:
    """Return a report with the fields of a `change` event; raises BadRequest."""
    raw = decode(body, dict[str, msgspec.Raw])
    types = _field_types()
    fields = {
        name: decode(bytes(value), types[name])
        for name, value in raw.items()
        if name in types
    }
    return msgspec.structs.replace(report, **fields)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {key: _readable(each) for key, each in cast("Json", value).items()}
    if isinstance(value, list | tuple):
        return [_readable(each) for each in cast("list[object]", value)]
    return value


def decode(body: bytes | str, shape: type[T]) -> T:
    """Turn JSON into a wire type, or raise BadRequest naming what is wrong."""
    try:
        return msgspec.json.decode(body, type=shape)
    except MALFORMED as error:
        raise BadRequest(f"not a {shape.__name__}: {error}") from error

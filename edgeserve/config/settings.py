"""Settings: all settings of node and balancer, with defaults and limits, frozen.

The order of sources, the later winning: the default here, the TOML file, the
environment, the command line. Top-level keys of the file (and `EDGESERVE_<KEY>`) apply
to node and balancer; `[node]`, `[balancer]` (and `EDGESERVE_NODE_<KEY>`) to one.
"""

from __future__ import annotations

import dataclasses
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeserve.config.limits import GrammarSettings, LimitSettings, setting
from edgeserve.config.paths import models_dir, state_dir
from edgeserve.config.values import a_url, an_origin, at_least, between, one_of, wrong
from edgeserve.quantization import loss

LOOPBACK = "127.0.0.1"

EVERYWHERE = "::"

HOST_NAME = platform.node() or "node"

DEFAULT_STATE_DIR = state_dir()
DEFAULT_MODELS_DIR = models_dir()


@dataclass(frozen=True, kw_only=True)
class SharedSettings(LimitSettings):
    """The settings that node and balancer share."""

    token_file: Path | None = setting(
        None,
        "File with the fleet token; by default `token` in the configuration folder,"
        " where `edgeserve token new` puts it.",
    )
    state_dir: Path = setting(
        DEFAULT_STATE_DIR, "Folder for identity and learned state."
    )
    drain_seconds: float = setting(
        30.0, "How long running requests may go on after a stop signal."
    )
    log_level: str = setting("info", "debug, info, warning or error.")

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        at_least(self, "drain_seconds", 0)
        one_of(self, "log_level", ("debug", "info", "warning", "error"))


@dataclass(frozen=True, kw_only=True)
class NodeSettings(SharedSettings):
    """The settings of a node. Immutable."""

    SECTION: ClassVar[str] = "node"

    name: str = setting(HOST_NAME, "The node's name in tables.")
    host: str | None = setting(
        None,
        "Address to listen on; by default loopback without a fleet token,"
        " every interface with one.",
    )
    port: int = setting(8090, "Port to listen on; 0 picks a free one.")
    models: tuple[str, ...] = setting(
        (),
        "GGUF file, or name of one in the models folder: `model` for the variant that"
        " suits best, `model:LABEL` for one, `model:*` for all. Repeat for several;"
        " by default every model in the folder that fits in memory.",
        flag="--model",
    )
    embedding_models: tuple[str, ...] = setting(
        (), "Like --model, served for /v1/embeddings.", flag="--embedding-model"
    )
    rerank_models: tuple[str, ...] = setting(
        (), "Like --model, served for /v1/rerank.", flag="--rerank-model"
    )
    models_dir: Path = setting(DEFAULT_MODELS_DIR, "Folder of GGUF files.")
    min_speed: float = setting(
        0.0,
        "Tokens/s for one stream: of a model's variants, the best quality that reaches"
        " it. 0: the best quality that fits.",
    )
    min_quality: str = setting(
        "",
        "Type, such as Q4_K_M, or KL divergence, such as 0.05: of a model's variants,"
        " the fastest that is as good. Empty: any.",
    )
    engine: str = setting("auto", "auto, native (llama-server) or bundled.")
    llama_server: Path | None = setting(None, "Path of a llama-server executable.")
    slots: int = setting(0, "Requests an engine decodes at once; 0 picks.")
    context: int = setting(0, "Context per slot, in tokens; 0 picks.")
    batch: int = setting(0, "Tokens per decode call, bounds cancel time; 0 picks.")
    cache_ram_mib: int = setting(
        0,
        "Main memory of each engine, in MiB, for conversations that have lost their"
        " slot: they return without being read again. 0: none.",
    )
    threads: int = setting(0, "CPU threads per engine; 0 picks.")
    gpu_layers: str = setting("auto", "Layers on the GPUs: auto, all or a number.")
    tensor_split: str = setting("", "Share of each GPU, such as 3,1; empty: by memory.")
    main_gpu: int = setting(0, "The GPU that computes what is not split.")
    experts_on_cpu: int = setting(
        0, "Mixture models: layers whose experts stay on the CPU; -1 for all."
    )
    per_gpu: bool = setting(
        False, "One engine on each GPU instead of one across all of them."
    )
    load_seconds: float = setting(600.0, "How long a model may take to load.")
    stuck_seconds: float = setting(
        120.0,
        "How long a busy engine may show no progress, at most, before it is restarted:"
        " twenty times what a step of its should take, and ten seconds, are enough.",
    )
    balancers: tuple[str, ...] = setting(
        (),
        "URL of a balancer to register with, where multicast is blocked.",
        flag="--balancer",
    )
    announce_url: str = setting(
        "",
        "URL to register with balancers where the node's own address is not the one"
        " that reaches it: in a container, behind port forwarding.",
    )
    advertise: bool = setting(True, "Announce this node by mDNS.")

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        between(self, "port", 0, 65535)
        one_of(self, "engine", ("auto", "native", "bundled"))
        for name in ("slots", "context", "batch", "threads", "cache_ram_mib"):
            at_least(self, name, 0)
        for name in ("load_seconds", "stuck_seconds"):
            at_least(self, name, 1)
        if not (self.gpu_layers in {"auto", "all"} or self.gpu_layers.isdecimal()):
            wrong(self, "gpu_layers", "must be auto, all or a number")
        if not re.fullmatch(r"(\d+(\.\d+)?(,\d+(\.\d+)?)*)?", self.tensor_split):
            wrong(self, "tensor_split", "must be numbers with commas between them")
        at_least(self, "min_speed", 0)
        if self.min_quality and not _is_quality(self.min_quality):
            wrong(self, "min_quality", "must be a type such as Q4_K_M, or a number")
        at_least(self, "main_gpu", 0)
        at_least(self, "experts_on_cpu", -1)
        for url in self.balancers:
            a_url(self, "balancers", url)
        if self.announce_url:
            a_url(self, "announce_url", self.announce_url)


def _is_quality(text: str) -> bool:
    return loss(text) is not None or re.fullmatch(r"\d*\.?\d+", text) is not None


@dataclass(frozen=True, kw_only=True)
class BalancerSettings(SharedSettings, GrammarSettings):
    """The settings of a balancer. Immutable."""

    SECTION: ClassVar[str] = "balancer"

    host: str | None = setting(
        None,
        "Address to listen on; by default loopback, or every interface where clients"
        " need a key or --anonymous lets them in.",
    )
    port: int = setting(8080, "Port to listen on; 0 picks a free one.")
    nodes: tuple[str, ...] = setting(
        (), "URL of a node, where multicast is blocked. Repeat.", flag="--node"
    )
    discover: bool = setting(True, "Find nodes by mDNS.")
    api_key_file: Path | None = setting(
        None,
        "File of client API keys, one a line; by default `api-keys` in the"
        " configuration folder, if there.",
    )
    cors_origins: tuple[str, ...] = setting(
        (),
        "Origin of a web page that may ask from a browser, such as"
        " https://chat.example; * for all. Repeat. By default pages of this machine,"
        " and all where clients need a key.",
        flag="--cors-origin",
    )
    anonymous: bool = setting(False, "Let clients in without a key, past loopback too.")
    tls: bool = setting(
        False,
        "Encrypt the connections of clients, with a certificate that this machine makes"
        " itself; its fingerprint is shown at the start.",
    )
    tls_cert: Path | None = setting(
        None,
        "Certificate for clients, with those that sign it (PEM); encrypts as --tls"
        " does. Read again when it changes.",
    )
    tls_key: Path | None = setting(
        None, "The certificate's private key (PEM); by default in the same file."
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Name by which clients without a key may call this machine, besides addresses,"
        " localhost and its own names. Repeat.",
        flag="--allowed-host",
    )
    media_hosts: tuple[str, ...] = setting(
        (),
        "Host from which engines may fetch what a request names by its URL, such as"
        " images; it is trusted with redirects. Repeat. By default only data: URLs.",
        flag="--media-host",
    )
    policy: str = setting(
        "predict",
        "predict: each request goes where its answer begins soonest, in predicted"
        " seconds; least-busy: where fewest slots are busy.",
    )
    calibrate: bool = setting(True, "Time an engine that joins with a short probe.")
    on_battery: bool = setting(
        True, "Send requests to machines on battery while others serve the model, too."
    )
    low_battery: float = setting(
        20.0, "Percent of battery under which a machine off mains is the last choice."
    )
    owner_first: bool = setting(
        True, "Make a machine whose processor others use up the last choice."
    )
    record: Path | None = setting(
        None,
        "File to append a trace to, for `edgeserve simulate`: sizes, times and keyed"
        " hashes of what is asked, no content.",
    )
    queue: int = setting(256, "Requests that may wait while every slot is busy.")
    queue_seconds: float = setting(300.0, "Longest time a request may wait.")
    attempts: int = setting(3, "Nodes tried for one request before giving up.")
    resume: str = setting(
        "same-variant",
        "Which engines go on with an answer that breaks off: same-variant, any (of the"
        " same model) or off.",
    )
    connect_seconds: float = setting(2.0, "How long connecting to a node may take.")
    suspect_seconds: float = setting(
        3.0, "Silence on a node's event stream after which it is not trusted."
    )
    forget_seconds: float = setting(
        60.0, "How long an unreachable node stays in the tables."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        between(self, "port", 0, 65535)
        one_of(self, "policy", ("predict", "least-busy"))
        between(self, "low_battery", 0, 100)
        at_least(self, "queue", 0)
        at_least(self, "attempts", 1)
        one_of(self, "resume", ("same-variant", "any", "off"))
        for name in ("queue_seconds", "connect_seconds", "suspect_seconds"):
            at_least(self, name, 0.05)
        at_least(self, "forget_seconds", 0)
        for each in dataclasses.fields(GrammarSettings):
            at_least(self, each.name, 1)
        if self.tls_key and not self.tls_cert:
            wrong(self, "tls_key", "needs tls_cert beside it")
        for url in self.nodes:
            a_url(self, "nodes", url)
        for origin in self.cors_origins:
            if origin not in {"*", "null"}:
                an_origin(self, "cors_origins", origin)

"""Settings: all settings of node and balancer, with defaults and limits, frozen.

The order of sources, the later winning: the default here, the TOML file, the
environment, the command line. Top-level keys of the file (and `EDGESERVE_<KEY>`) apply
to node and balancer; `[node]`, `[balancer]` (and `EDGESERVE_NODE_<KEY>`) to one.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeserve.config.access import AccessSettings
from edgeserve.config.limits import (
    GrammarSettings,
    LimitSettings,
    names_of,
    setting,
    tables,
)
from edgeserve.config.machine import MachineEnergySettings, OnDemandSettings
from edgeserve.config.paths import models_dir, state_dir
from edgeserve.config.routes import ModelRoute
from edgeserve.config.routing import FleetEnergySettings, RoutingSettings
from edgeserve.config.servers import AdoptionSettings, ServerSettings
from edgeserve.config.telemetry import TelemetrySettings
from edgeserve.config.values import DNS_SCHEMES, a_url, at_least, between, one_of, wrong
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
        "File with the fleet token. Default: `token` in the configuration folder,"
        " which `edgeserve token new` writes.",
    )
    state_dir: Path = setting(
        DEFAULT_STATE_DIR,
        "Folder for what is kept between runs, such as a node's id and learned speeds.",
    )
    drain_seconds: float = setting(
        30.0,
        "Longest time that running requests may continue after a stop signal, in"
        " seconds.",
    )
    log_level: str = setting(
        "info", "Lowest level to log: debug, info, warning or error."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        at_least(self, "drain_seconds", 0)
        one_of(self, "log_level", ("debug", "info", "warning", "error"))


@dataclass(frozen=True, kw_only=True)
class NodeSettings(
    SharedSettings, OnDemandSettings, AdoptionSettings, MachineEnergySettings
):
    """The settings of a node. Immutable."""

    SECTION: ClassVar[str] = "node"

    name: str = setting(
        HOST_NAME, "Name of this node in tables, logs and response headers."
    )
    host: str | None = setting(
        None,
        "Address to listen on. Default: loopback without a fleet token, every"
        " interface with one.",
    )
    port: int = setting(8090, "TCP port to listen on. 0: any.")
    models: tuple[str, ...] = setting(
        (),
        "Model to serve: a GGUF file, or a name in the models folder. `model` means"
        " the variant that suits best, `model:LABEL` that variant, `model:*` all. May"
        " be repeated. Default: every model that fits in memory.",
        flag="--model",
    )
    embedding_models: tuple[str, ...] = setting(
        (),
        "Model to serve at /v1/embeddings, named as for --model. May be repeated.",
        flag="--embedding-model",
    )
    rerank_models: tuple[str, ...] = setting(
        (),
        "Model to serve at /v1/rerank, named as for --model. May be repeated.",
        flag="--rerank-model",
    )
    models_dir: Path = setting(
        DEFAULT_MODELS_DIR,
        "Folder with GGUF files; a running node follows it.",
    )
    min_speed: float = setting(
        0.0,
        "Minimum tokens/s of one stream: of a model's variants, the best quality that"
        " reaches it is served. 0: the best quality that fits in memory.",
    )
    min_quality: str = setting(
        "",
        "Minimum quality, as a type such as Q4_K_M or a KL divergence such as 0.05:"
        " of a model's variants, the fastest that reaches it is served. Empty: any"
        " quality.",
    )
    engine: str = setting(
        "auto",
        "Engine to run: native (llama-server), bundled (llama-cpp-python), or auto,"
        " which prefers native.",
    )
    llama_server: Path | None = setting(
        None,
        "Path of the llama-server executable. Default: the one that `edgeserve engine"
        " build` made, else the one on PATH.",
    )
    slots: int = setting(
        0,
        "Requests that one engine decodes at once. 0: chosen by cores and memory.",
    )
    context: int = setting(
        0, "Context of each slot, in tokens. 0: chosen by model and memory."
    )
    batch: int = setting(
        0,
        "Number of tokens in one decode call, which cannot be interrupted. 0: chosen"
        " by cores and GPUs.",
    )
    cache_ram_mib: int = setting(
        0,
        "Main memory of each engine, in MiB, for the prompts of conversations that no"
        " longer have a slot, so that they are not processed again. 0: none.",
    )
    cache_disk_mib: int = setting(
        2048,
        "Part of the disk, in MiB, for what slots have read, so that conversations move"
        " to other nodes and come back without being read again. 0: none.",
    )
    memory_mib: int = setting(
        0,
        "Main memory that all engines together may take, in MiB. 0: 90 % of what is"
        " free.",
    )
    threads: int = setting(
        0, "Number of CPU threads of one engine. 0: one for each physical core."
    )
    gpu_layers: str = setting(
        "auto", "Layers on the GPUs: a number, all, or auto, as many as fit."
    )
    tensor_split: str = setting(
        "", "Share of the model on each GPU, such as 3,1. Empty: by free memory."
    )
    main_gpu: int = setting(
        0, "Number of the GPU that computes what is not split, counted from 0."
    )
    experts_on_cpu: int = setting(
        0,
        "Number of layers whose experts stay on the CPU, in mixture-of-experts"
        " models. -1: all layers.",
    )
    per_gpu: bool = setting(
        False, "Start one engine on each GPU instead of one engine on all GPUs."
    )
    load_seconds: float = setting(
        600.0, "Longest time that a model may take to load, in seconds."
    )
    stuck_seconds: float = setting(
        120.0,
        "Longest time that a busy engine may make no progress before it is restarted,"
        " in seconds. An engine whose speed is known is restarted sooner: after the"
        " time of 20 decode calls, and at least 10 s.",
    )
    balancers: tuple[str, ...] = setting(
        (),
        "URL of a balancer to register with, for networks without multicast. May be"
        " repeated.",
        flag="--balancer",
    )
    announce_url: str = setting(
        "",
        "URL at which balancers reach this node, if not its own address: in a"
        " container, behind port forwarding.",
    )
    advertise: bool = setting(True, "Announce this node by mDNS.")

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        between(self, "port", 0, 65535)
        one_of(self, "engine", ("auto", "native", "bundled"))
        for name in (
            "slots",
            "context",
            "batch",
            "threads",
            "cache_ram_mib",
            "cache_disk_mib",
            "memory_mib",
        ):
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
        self.check_on_demand()
        self.check_adoption()
        self.check_energy()
        at_least(self, "main_gpu", 0)
        at_least(self, "experts_on_cpu", -1)
        for url in self.balancers:
            a_url(self, "balancers", url)
        if self.announce_url:
            a_url(self, "announce_url", self.announce_url)


def _is_quality(text: str) -> bool:
    return loss(text) is not None or re.fullmatch(r"\d*\.?\d+", text) is not None


@dataclass(frozen=True, kw_only=True)
class BalancerSettings(
    SharedSettings,
    GrammarSettings,
    AccessSettings,
    RoutingSettings,
    FleetEnergySettings,
    ServerSettings,
    TelemetrySettings,
):
    """The settings of a balancer. Immutable."""

    SECTION: ClassVar[str] = "balancer"

    host: str | None = setting(
        None,
        "Address to listen on. Default: loopback, or every interface if clients need"
        " a key or --anonymous is set.",
    )
    port: int = setting(8080, "TCP port to listen on. 0: any free port.")
    nodes: tuple[str, ...] = setting(
        (),
        "URL of a node, or of many: dns+srv://NAME. May be repeated.",
        flag="--node",
    )
    discover: bool = setting(True, "Find nodes by mDNS.")
    queue: int = setting(
        256, "Largest number of requests that wait while all slots are busy."
    )
    queue_seconds: float = setting(
        300.0, "Longest time that a request may wait for a slot, in seconds."
    )
    attempts: int = setting(3, "Largest number of failed attempts of one request.")
    resume: str = setting(
        "same-variant",
        "Engines that may continue an answer that breaks off: same-variant, any (of"
        " the same model) or off.",
    )
    connect_seconds: float = setting(
        2.0, "Longest time to connect to a node, in seconds."
    )
    suspect_seconds: float = setting(
        3.0,
        "Time without events from a node, in seconds, after which the node is"
        " suspected to be down.",
    )
    forget_seconds: float = setting(
        60.0, "Time that an unreachable node stays in the tables, in seconds."
    )
    routes: tuple[ModelRoute, ...] = tables(
        "route",
        "Virtual models, in any number: clients name the route, and the first of its"
        " models answers that no reason in `when` rules out: away (no engine can serve"
        " it soon), full (first token predicted later than full_seconds), too-long"
        " (the prompt does not fit). With one model, an alias. With cascade instead of"
        " models, the first of two models answers if the mean log-probability of its"
        " first hold_tokens is not below min_mean_logprob.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        super().__post_init__()
        between(self, "port", 0, 65535)
        at_least(self, "queue", 0)
        at_least(self, "attempts", 1)
        one_of(self, "resume", ("same-variant", "any", "off"))
        for name in ("queue_seconds", "connect_seconds", "suspect_seconds"):
            at_least(self, name, 0.05)
        at_least(self, "forget_seconds", 0)
        for name in names_of(GrammarSettings):
            at_least(self, name, 1)
        self.check_access()
        self.check_routing()
        self.check_energy()
        self.check_servers()
        self.check_telemetry()
        for url in self.nodes:
            a_url(self, "nodes", url, DNS_SCHEMES)

"""What a test's `ServerProcess` would say on the command line, as parameters.

Names are those of xllamacpp's `CommonParams`, as in `node.engines.flags.parameters`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

Parameters = dict[str, Any]


class Server(Protocol):
    """llama.cpp's `ServerProcess`, as far as it is looked at here."""

    server_host: str
    server_port: int

    def __getattr__(self, name: str) -> Any: ...


DEBUG = 10
"""From there on answers tell their prompts."""

SAME = {
    "n_batch": "n_batch", "n_ubatch": "n_ubatch", "n_ctx": "n_ctx",
    "n_predict": "n_predict", "n_slots": "n_parallel",
    "n_threads": "cpuparams.n_threads",
    "temperature": "sampling.temp", "seed": "sampling.seed", "kv_unified": "kv_unified",
    "swa_full": "swa_full", "server_metrics": "endpoint_metrics",
    "server_slots": "endpoint_slots", "slot_save_path": "slot_save_path",
    "enable_ctx_shift": "ctx_shift", "chat_template": "chat_template",
    "media_path": "media_path", "sleep_idle_seconds": "sleep_idle_seconds",
    "cache_ram": "cache_ram_mib", "cors_origins": "cors_origins",
    "backend_sampling": "sampling.backend_sampling", "n_ga": "grp_attn_n",
    "n_ga_w": "grp_attn_w", "spec_draft_n_max": "speculative.draft.n_max",
    "spec_draft_n_min": "speculative.draft.n_min", "ui_mcp_proxy": "ui_mcp_proxy",
    "spec_synth_len": "speculative.synth_len",
    "spec_synth_rates": "speculative.synth_rates",
    "mcp_servers_json": "mcp_servers_json", "mcp_servers_config": "mcp_servers_config",
}  # fmt: skip

KINDS = {"pooling": "LLAMA_POOLING_TYPE_", "ctk": "GGML_TYPE_", "ctv": "GGML_TYPE_"}
CALLED = {"pooling": "pooling_type", "ctk": "cache_type_k", "ctv": "cache_type_v"}
FLASH = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
REASONING = {"deepseek": "DEEPSEEK", "none": "NONE"}


def parameters(server: Server) -> Parameters:
    """Return them, but for model, address and key: these are said in other ways."""
    chosen: Parameters = {
        ours: value
        for theirs, ours in SAME.items()
        if (value := getattr(server, theirs, None)) is not None
    }
    chosen |= {
        CALLED[name]: prefix + value.upper()
        for name, prefix in KINDS.items()
        if (value := getattr(server, name, None))
    }
    chosen |= {"use_jinja": bool(server.jinja), "warmup": False, "offline": True}
    if not server.n_slots:
        chosen |= {"n_parallel": 4, "kv_unified": True}
    if server.no_cache_idle_slots:
        chosen["cache_idle_slots"] = False
    if server.debug:
        chosen["verbosity"] = DEBUG
    return {**_role(server), **chosen, **_speculation(server), **_reading(server)}


def _role(server: Server) -> Parameters:
    if server.server_reranking:
        return {"embedding": True, "pooling_type": "LLAMA_POOLING_TYPE_RANK"}
    if server.server_embeddings:
        # Of the models that the tests ask for, their files say so.
        return {"embedding": True, "pooling_type": "LLAMA_POOLING_TYPE_MEAN"}
    return {}


def _speculation(server: Server) -> Parameters:
    if not server.spec_type:
        return {}
    name = server.spec_type.upper().replace("-", "_")
    return {
        "speculative.draft.mparams.path": server.model_draft or "",
        "speculative.types": [f"COMMON_SPECULATIVE_TYPE_{name}"],
    }


def _reading(server: Server) -> Parameters:
    """Return how prompts and answers are read."""
    chosen: Parameters = {}
    if server.fa:
        chosen["flash_attn_type"] = f"LLAMA_FLASH_ATTN_TYPE_{FLASH[server.fa]}"
    if server.reasoning_format in REASONING:
        kind = REASONING[server.reasoning_format]
        chosen["reasoning_format"] = f"COMMON_REASONING_FORMAT_{kind}"
    if server.reasoning in {"on", "off"}:
        chosen["enable_reasoning"] = int(server.reasoning == "on")
    if server.chat_template_file:
        chosen["chat_template"] = Path(server.chat_template_file).read_text()
    return chosen


def only_direct(server: Server) -> Parameters:
    """Return what a node or a balancer has its own word for."""
    names = [each for each in (server.model_alias or "").split(",") if each]
    tags = [each for each in (server.model_tags or "").split(",") if each]
    return {
        "model_alias": names,
        "model_tags": tags,
        "hostnames": [each.strip() for each in server.server_host.split(",")],
        "port": server.server_port,
        "api_keys": [server.api_key] if server.api_key else [],
        "ui": not server.no_ui,
        "server_tools": (server.server_tools or "").split(",")
        if server.server_tools
        else [],
    }


def slots(server: Server) -> int:
    """How many requests it decodes at once."""
    return int(server.n_slots or 4)


def context(server: Server) -> int:
    """Tokens of one slot."""
    whole = int(server.n_ctx or 8192)
    shared = server.kv_unified or not server.n_slots
    return whole if shared else whole // slots(server)

"""Engine flags: one launch as command-line flags or as parameters. Pure.

All that we depend on is set, even where it is the default today: the defaults have
changed before (four slots on one shared context, 8 GiB of prompt cache).
"""

from __future__ import annotations

from edgeserve.config.settings import LOOPBACK
from edgeserve.runtime.threads import BLOCKTIME, SPIN
from edgeserve.wire import Launch
from node.engines.base import EngineSpec

HTTP_SECONDS = 3600
"""llama.cpp's limit for one read or write; long, for slow machines."""

SPARE_THREADS = 4
"""HTTP threads beyond one per slot, for probes."""

PING_SECONDS = 30

VERBOSITY = 4
"""The lowest level that logs the placement of layers and memory."""

POLLS_PER_MS = 5_000
"""About how often a spinning thread polls for work in a millisecond."""

UNQUANTIZED = frozenset(("f32", "f16", "bf16"))
"""KV types that do not need flash attention."""

DRAFT_KV = "f16"
"""KV type of a draft model: its heads may be too short for the larger one's."""

FAST = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}

Parameter = str | int | float | bool | list[str] | list[float]


def environment(launch: Launch) -> dict[str, str]:
    """Return variables for OpenMP, of GNU or clang, which llama.cpp has no flag for."""
    if not launch.spin:
        return {}
    return {SPIN: str(launch.spin), BLOCKTIME: str(launch.spin // POLLS_PER_MS)}


def arguments(spec: EngineSpec, port: int) -> tuple[str, ...]:
    """Return llama-server's arguments. The API key travels in the environment."""
    launch = spec.launch
    return (
        *("--model", str(spec.path)),
        *("--alias", spec.variant),
        *("--host", LOOPBACK),
        *("--port", str(port)),
        *shape(launch),
        *("--threads", str(launch.threads)),
        *("--threads-batch", str(launch.threads_batch or launch.threads)),
        *("--threads-http", str(launch.slots + SPARE_THREADS)),
        *_drafting(spec),
        *_offload(launch),
        "--no-kv-unified",
        "--no-context-shift",
        "--cont-batching",
        "--cache-prompt",
        *("--cache-ram", str(launch.cache_ram_mib)),
        *("--slot-prompt-similarity", "0.1"),
        *("--cache-reuse", "0"),
        "--warmup",
        "--jinja",
        "--metrics",
        "--slots",
        "--no-ui",
        "--offline",
        *("--timeout", str(HTTP_SECONDS)),
        *("--sse-ping-interval", str(PING_SECONDS)),
        *("--log-colors", "off"),
        *("--verbosity", str(VERBOSITY)),
        *_role(spec),
        *(("--slot-save-path", str(spec.states)) if spec.states else ()),
        *(("--mmproj", str(spec.projector)) if spec.projector else ()),
    )


def _drafting(spec: EngineSpec) -> tuple[str, ...]:
    """Return how tokens are guessed ahead; without its file, no model guesses."""
    launch, draft = spec.launch, spec.draft
    if not launch.draft:
        return ("--spec-type", launch.speculative) if launch.speculative else ()
    if draft is None:
        return ()
    return (
        *("--spec-type", launch.speculative),
        *("--spec-draft-model", str(draft)),
        *("--spec-draft-n-max", str(launch.draft_tokens)),
        *("--spec-draft-n-min", "0"),
        *("--spec-draft-p-min", "0"),
        *("--spec-draft-type-k", DRAFT_KV),
        *("--spec-draft-type-v", DRAFT_KV),
        *("--spec-draft-ngl", "all" if launch.gpu_layers else "0"),
        *("--spec-draft-threads", str(launch.threads)),
        *("--spec-draft-threads-batch", str(launch.threads_batch or launch.threads)),
    )


def shape(launch: Launch) -> tuple[str, ...]:
    """Return the arguments that decide how much memory the engine takes."""
    return (
        *("--parallel", str(launch.slots)),
        *("--ctx-size", str(launch.slots * launch.context)),
        *("--batch-size", str(launch.batch)),
        *("--ubatch-size", str(launch.ubatch or launch.batch)),
        *("--cache-type-k", launch.kv_type),
        *("--cache-type-v", launch.kv_type),
        *("--flash-attn", attention(launch)),
    )


def attention(launch: Launch) -> str:
    """Return `on` where quantized values need it, so that it is never off silently."""
    if launch.kv_type in UNQUANTIZED:
        return "auto" if launch.flash_attention else "off"
    return "on"


def _offload(launch: Launch) -> tuple[str, ...]:
    """Return what goes to which GPU, and forbid llama.cpp to change it."""
    layers = launch.gpu_layers
    devices = ("none",) if layers == 0 else launch.devices
    split = ",".join(f"{share:g}" for share in launch.tensor_split)
    return (
        *("--gpu-layers", "all" if layers < 0 else str(layers)),
        *(("--device", ",".join(devices)) if devices else ()),
        *(("--tensor-split", split) if split else ()),
        *(("--override-tensor", launch.overrides) if launch.overrides else ()),
        *("--main-gpu", str(launch.main_gpu)),
        *("--fit", "off"),
    )


def _role(spec: EngineSpec) -> tuple[str, ...]:
    if spec.role == "rerank":
        return ("--reranking", "--pooling", "rank")
    if spec.role == "embeddings":
        pooling = ("--pooling", spec.pooling) if spec.pooling else ()
        return ("--embeddings", *pooling)
    return ()


def parameters(spec: EngineSpec, port: int, api_key: str) -> dict[str, Parameter]:
    """Return the same for xllamacpp: attribute path → value, enums by member name."""
    launch = spec.launch
    kv_type = f"GGML_TYPE_{launch.kv_type.upper()}"
    fast = FAST[attention(launch)]
    return {
        "model.path": str(spec.path),
        "model_alias": [spec.variant],
        "hostnames": [LOOPBACK],
        "port": port,
        "api_keys": [api_key],
        "n_parallel": launch.slots,
        "n_ctx": launch.slots * launch.context,
        "n_batch": launch.batch,
        "n_ubatch": launch.ubatch or launch.batch,
        "cpuparams.n_threads": launch.threads,
        "cpuparams_batch.n_threads": launch.threads_batch or launch.threads,
        "cache_type_k": kv_type,
        "cache_type_v": kv_type,
        "flash_attn_type": f"LLAMA_FLASH_ATTN_TYPE_{fast}",
        **_speculation(spec),
        "n_gpu_layers": -2 if launch.gpu_layers < 0 else launch.gpu_layers,
        "main_gpu": launch.main_gpu,
        "tensor_split": list(launch.tensor_split),
        "tensor_buft_overrides": launch.overrides,
        "fit_params": False,
        "kv_unified": False,
        "ctx_shift": False,
        "cont_batching": True,
        "cache_prompt": True,
        "cache_ram_mib": launch.cache_ram_mib,
        "cache_idle_slots": launch.cache_ram_mib != 0,
        "slot_prompt_similarity": 0.1,
        "n_cache_reuse": 0,
        "warmup": True,
        "use_jinja": True,
        "endpoint_metrics": True,
        "endpoint_slots": True,
        "endpoint_props": False,
        "ui": False,
        "offline": True,
        "timeout_read": HTTP_SECONDS,
        "timeout_write": HTTP_SECONDS,
        "sse_ping_interval": PING_SECONDS,
        "verbosity": VERBOSITY,
        **_role_parameters(spec),
        # Unlike the flag, it is put before a file's name as it is.
        **({"slot_save_path": f"{spec.states}/"} if spec.states else {}),
        **({"mmproj.path": str(spec.projector)} if spec.projector else {}),
    }


def _speculation(spec: EngineSpec) -> dict[str, Parameter]:
    launch = spec.launch
    if not launch.speculative or (launch.draft and spec.draft is None):
        return {}
    name = launch.speculative.upper().replace("-", "_")
    types: Parameter = [f"COMMON_SPECULATIVE_TYPE_{name}"]
    if spec.draft is None:
        return {"speculative.types": types}
    kv_type = f"GGML_TYPE_{DRAFT_KV.upper()}"
    many = launch.threads_batch or launch.threads
    draft: dict[str, Parameter] = {
        "mparams.path": str(spec.draft),
        "n_max": launch.draft_tokens,
        "n_min": 0,
        "p_min": 0.0,
        "cache_type_k": kv_type,
        "cache_type_v": kv_type,
        "n_gpu_layers": -2 if launch.gpu_layers else 0,
        "cpuparams.n_threads": launch.threads,
        "cpuparams_batch.n_threads": many,
    }
    given = {f"speculative.draft.{name}": value for name, value in draft.items()}
    return {"speculative.types": types, **given}


def _role_parameters(spec: EngineSpec) -> dict[str, Parameter]:
    if spec.role == "rerank":
        return {"embedding": True, "pooling_type": "LLAMA_POOLING_TYPE_RANK"}
    if spec.role == "embeddings":
        pooling = f"LLAMA_POOLING_TYPE_{(spec.pooling or 'unspecified').upper()}"
        return {"embedding": True, "pooling_type": pooling}
    return {"embedding": False}

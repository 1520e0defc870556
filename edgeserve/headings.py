"""Under which heading `--help` shows each setting, and which are rare. Pure."""

from __future__ import annotations

HEADINGS = {
    "Models": (
        "models",
        "embedding_models",
        "rerank_models",
        "models_dir",
        "min_speed",
        "min_quality",
    ),
    "Engine": (
        "slots",
        "context",
        "threads",
        "gpu_layers",
        "engine",
        "llama_server",
        "batch",
        "cache_ram_mib",
        "load_seconds",
        "stuck_seconds",
    ),
    "GPUs": ("tensor_split", "main_gpu", "per_gpu", "experts_on_cpu"),
    "Network": (
        "name",
        "host",
        "port",
        "balancers",
        "announce_url",
        "advertise",
        "nodes",
        "discover",
    ),
    "Who may ask": ("token_file", "api_key_file", "anonymous", "cors_origins"),
    "Which machine answers": (
        "policy",
        "on_battery",
        "low_battery",
        "owner_first",
        "calibrate",
        "queue",
        "queue_seconds",
        "attempts",
        "resume",
        "connect_seconds",
        "suspect_seconds",
        "forget_seconds",
    ),
    "Process": ("config_file", "state_dir", "log_level", "drain_seconds", "record"),
}

OTHERS = "Limits"
"""The heading of every setting that the table does not name."""

COMMON = frozenset(
    (
        "models",
        "models_dir",
        "min_speed",
        "slots",
        "context",
        "gpu_layers",
        "name",
        "host",
        "port",
        "balancers",
        "announce_url",
        "nodes",
        "token_file",
        "api_key_file",
        "anonymous",
        "policy",
        "on_battery",
        "queue",
        "config_file",
        "log_level",
    )
)
"""Settings that `--help` shows; `--help-all` shows the others, too."""


def heading_of(name: str) -> str:
    """Return the heading of a setting."""
    found = (heading for heading, names in HEADINGS.items() if name in names)
    return next(found, OTHERS)


def in_order(names: list[str]) -> list[str]:
    """Sort settings as help shows them: by heading, then as the table has them."""
    place = [name for row in HEADINGS.values() for name in row]
    return sorted(
        names, key=lambda name: place.index(name) if name in place else len(place)
    )

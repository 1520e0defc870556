"""Where things are kept on this machine. Environment variables move each folder."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_config_path, user_data_path, user_state_path


def config_dir() -> Path:
    """Settings, token, keys: EDGESERVE_CONFIG_DIR or the platform's place."""
    return _place("EDGESERVE_CONFIG_DIR", user_config_path("edgeserve"))


def state_dir() -> Path:
    """Identity and learned state: EDGESERVE_STATE_DIR or the platform's place."""
    return _place("EDGESERVE_STATE_DIR", user_state_path("edgeserve"))


def models_dir() -> Path:
    """GGUF files: EDGESERVE_MODELS_DIR or the platform's place."""
    return _place("EDGESERVE_MODELS_DIR", user_data_path("edgeserve") / "models")


def _place(variable: str, otherwise: Path) -> Path:
    return Path(os.environ[variable]) if variable in os.environ else otherwise

"""Paths: where settings, state and models are kept on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_config_path, user_data_path, user_state_path

from edgeserve.errors import SettingsError

OURS = ("EDGESERVE_CONFIG_DIR", "EDGESERVE_STATE_DIR", "EDGESERVE_MODELS_DIR")
PLATFORMS = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")

OWN_CERTIFICATE = "client-port.pem"
"""File in the state folder: the certificate and key that a balancer makes itself."""


def config_dir() -> Path:
    """Settings, token, keys: EDGESERVE_CONFIG_DIR or the platform's place."""
    return _place("EDGESERVE_CONFIG_DIR", user_config_path)


def state_dir() -> Path:
    """Identity and learned state: EDGESERVE_STATE_DIR or the platform's place."""
    return _place("EDGESERVE_STATE_DIR", user_state_path)


def models_dir() -> Path:
    """GGUF files: EDGESERVE_MODELS_DIR or the platform's place."""
    return _place("EDGESERVE_MODELS_DIR", user_data_path, "models")


def saved_states(folder: Path) -> Path:
    """Return where a node keeps what slots have read."""
    return folder / "caches"


def admin_key_file(folder: Path, port: int) -> Path:
    """Return where the balancer on `port` leaves a key for commands on its machine."""
    return folder / f"admin-{port}.key"


def refuse_closed(folder: Path) -> None:
    """Raise SettingsError where this user may not enter a state folder."""
    try:
        (folder / "any").lstat()
    except PermissionError:
        raise SettingsError(
            f"cannot keep state in {folder}: user {os.getuid()} with group"
            f" {os.getgid()} may not enter it; choose another folder with --state-dir,"
            " or for a container the group 0"
        ) from None
    except OSError:
        return  # it is made, or what is wrong with it is said later


def moved_by(folder: Path) -> str | None:
    """Return the variable that has put one of these folders where it is, if one has."""
    return next(
        (
            variable
            for variable in OURS + PLATFORMS
            if (place := os.environ.get(variable)) and folder.is_relative_to(place)
        ),
        None,
    )


def _place(variable: str, otherwise: Callable[[str], Path], *below: str) -> Path:
    # As everywhere with folders, a variable that is empty counts as not set.
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return otherwise("edgeserve").joinpath(*below)
    except RuntimeError as error:  # a user without a name, as containers have
        raise SettingsError(
            f"this user has no home folder; set HOME, or {variable} to a folder"
        ) from error

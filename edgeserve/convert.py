"""Turn what a file, a variable or a flag says into a value of a setting's type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeserve.errors import SettingsError

KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[str, ...]: "a list of texts",
}
"""What a value of each type is called; the others are texts."""


def converted(label: str, origin: str, raw: Any, hint: Any) -> Any:
    """Return the value that `raw` means as a `hint`.

    Raises SettingsError with `label`, the setting's name, and where it came from.
    """
    if hint == tuple[str, ...] and isinstance(raw, str):
        raw = [part for part in raw.split(",") if part]
    if isinstance(raw, Path):
        return raw
    try:
        return msgspec.convert(raw, hint, strict=False, dec_hook=_path)
    except (msgspec.ValidationError, TypeError) as error:
        kind = KINDS.get(hint, "a text")
        raise SettingsError(
            f"{label} must be {kind}, not {raw!r} (from {origin})"
        ) from error


def _path(hint: type, raw: Any) -> Any:
    if hint is Path and isinstance(raw, str):
        return Path(raw).expanduser()
    raise TypeError(f"Expected {hint.__name__}")

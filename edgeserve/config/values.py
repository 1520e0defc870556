"""Setting values: checks a value, and converts text to its type."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from edgeserve.errors import SettingsError
from edgeserve.suggestions import did_you_mean


class Section(Protocol):
    """A settings class; SECTION is its name in the file."""

    SECTION: ClassVar[str]


class WrongValue(ValueError):
    """A value that a settings class refuses; `field` is the attribute's name."""

    def __init__(self, sentence: str, field_name: str) -> None:
        super().__init__(sentence)
        self.field = field_name


def wrong(settings: Section, name: str, why: str, hint: str = "") -> None:
    """Refuse the value of one field."""
    label = f"{settings.SECTION}.{name}"
    raise WrongValue(f"{label} {why}, not {getattr(settings, name)!r}{hint}", name)


def at_least(settings: Section, name: str, low: float) -> None:
    """Refuse a number below `low`."""
    if not getattr(settings, name) >= low:
        wrong(settings, name, f"must be at least {low:g}")


def between(settings: Section, name: str, low: int, high: int) -> None:
    """Refuse a number outside `low` to `high`."""
    if not low <= getattr(settings, name) <= high:
        wrong(settings, name, f"must be between {low} and {high}")


def one_of(settings: Section, name: str, words: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list."""
    value = getattr(settings, name)
    if value not in words:
        hint = did_you_mean(str(value), words)
        wrong(settings, name, f"must be one of {', '.join(words)}", hint)


DNS_SCHEMES = ("dns", "dns+srv")
"""Begin a URL that means a name, with all the nodes behind it."""


def a_url(settings: Section, name: str, url: str, more: Collection[str] = ()) -> None:
    """Refuse what is not an http or https URL with a host. `more`: other schemes."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"http", "https", *more} or not rest.strip("/"):
        others = f" or {', '.join(f'{each}://NAME' for each in more)}" if more else ""
        wrong(settings, name, f"must be URLs such as http://192.168.1.20:8090{others}")


def an_origin(settings: Section, name: str, origin: str) -> None:
    """Refuse a text that is no origin of a web page."""
    scheme, _, rest = origin.partition("://")
    if not scheme or not rest or "/" in rest:
        wrong(settings, name, "must be origins such as https://chat.example")


def an_address(settings: Section, name: str, address: str) -> None:
    """Refuse a text that is no IP address."""
    try:
        ip_address(address)
    except ValueError:
        wrong(settings, name, "must be addresses such as 192.168.1.5")


KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[str, ...]: "a list of texts",
}
"""Names of types in error messages; all others are texts."""


def converted(label: str, origin: str, raw: Any, hint: Any) -> Any:
    """Return `raw` converted to the type `hint`.

    Raises SettingsError with `label`, the setting's name, and its origin.
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

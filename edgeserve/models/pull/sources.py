"""Sources of models: reads what follows `edgeserve pull`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from edgeserve.errors import SettingsError

HUBS = ("hf.co", "huggingface.co", "www.huggingface.co")
PAGES = ("blob", "resolve", "raw", "tree")
"""Parts of a page's address that come before the revision."""

_PART = re.compile(r"[A-Za-z0-9][\w.-]*")
_BARE = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class HubRepo:
    """A repository of the hub; `quant` is empty where none is named."""

    repo: str
    quant: str = ""
    revision: str = "main"


@dataclass(frozen=True)
class HubFile:
    """One GGUF of a repository."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True)
class WebFile:
    """A GGUF at a URL."""

    url: str


@dataclass(frozen=True)
class LocalFile:
    """A GGUF of this machine."""

    path: Path


Source = HubRepo | HubFile | WebFile | LocalFile


class UnknownSource(SettingsError):
    """Nothing can be pulled from there; the sentence says what is possible."""


def parse(text: str, *, exists: bool) -> Source:
    """Read a source; `exists`: a file has that path. Raises UnknownSource."""
    if exists or text.startswith(("/", "./", "../", "~")):
        return LocalFile(Path(text).expanduser())
    if text.startswith("hf://"):
        return _of_hub(text, text.removeprefix("hf://"))
    host, _, rest = text.partition("/")
    if host.lower() in HUBS:
        return _of_hub(text, rest)
    if "://" in text:
        return _of_web(text)
    if _BARE.fullmatch(text) and not text.lower().endswith(".gguf"):
        return _of_hub(text, text)
    if text.lower().endswith(".gguf"):
        raise UnknownSource(
            f"there is no file {text}; a file of a repository is"
            " hf://ORG/REPOSITORY/FILE.gguf"
        )
    raise UnknownSource(_not_understood(text))


def _not_understood(text: str) -> str:
    return (
        f"{text!r} is no source; these are: a name that `edgeserve pull` lists,"
        " hf.co/ORG/REPOSITORY or hf.co/ORG/REPOSITORY:Q4_K_M,"
        " hf://ORG/REPOSITORY/FILE.gguf, https://…/FILE.gguf, a path"
    )


def _of_hub(text: str, rest: str) -> HubRepo | HubFile:
    path, _, quant = rest.strip("/").partition(":")
    org, name, *inside = path.split("/") if "/" in path else (path, "")
    repo, revision = f"{org}/{name}", "main"
    if len(inside) > 1 and inside[0] in PAGES:
        revision, inside = inside[1], inside[2:]
    file = "/".join(inside)
    plain = all(map(_PART.fullmatch, (org, name, revision)))
    if not plain or not stays_inside(file):
        raise UnknownSource(_not_understood(text))
    if file and not file.lower().endswith(".gguf"):
        raise UnknownSource(f"{file} of {repo} is no GGUF file; only those are served")
    if file and quant:
        raise UnknownSource(f"{text!r} names a file and a quantization; name one")
    return HubFile(repo, file, revision) if file else HubRepo(repo, quant, revision)


def _of_web(text: str) -> Source:
    try:
        url = urlsplit(text)
        host = url.hostname or ""
    except ValueError:
        raise UnknownSource(_not_understood(text)) from None
    if url.scheme == "https" and host in HUBS:
        return _of_hub(text, unquote(url.path))
    if not safe(url):
        raise UnknownSource(
            f"{text}: only https is taken; http could be changed on its way"
        )
    path = unquote(url.path).lstrip("/")
    if not url.path.lower().endswith(".gguf") or not stays_inside(path):
        raise UnknownSource(f"{text}: the address of a model ends in .gguf")
    return WebFile(text)


def stays_inside(path: str) -> bool:
    """Whether a path, below some folder, is a file name that stays there."""
    parts = path.split("/")
    return path.isprintable() and ".." not in parts and not path.startswith("/")


def safe(url: SplitResult) -> bool:
    """Whether the answer comes unchanged: by https, or from this machine."""
    # Imported here: most sources are no URLs.
    from edgeserve.security.tokens import is_loopback

    if url.scheme == "https":
        return bool(url.hostname)
    return url.scheme == "http" and is_loopback(url.hostname or "")

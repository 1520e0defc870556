"""Server settings: servers that are no nodes, such as vLLM and Ollama, by their URLs.

A URL alone is enough; a table says more. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec

from edgeserve.config.limits import setting, tables
from edgeserve.config.values import Section, a_url, wrong
from edgeserve.suggestions import did_you_mean
from edgeserve.wire import Ability

ServerKind = Literal[
    "auto", "openai", "vllm", "llama-server", "ollama", "sglang", "tgi",
    "lmstudio", "localai", "tensorrt-llm", "ray-serve",
]  # fmt: skip
"""What a server is; `auto`: as its answers show. `openai`: any other."""

KINDS: tuple[ServerKind, ...] = get_args(ServerKind)
ABILITIES: tuple[Ability, ...] = get_args(Ability)

MOST_WIDTH = 4096
LONGEST = 128
"""Characters of a name."""


class ServerSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `width` and `context` are 0 where the server says them.

    `ca_file`: certificates that it may prove itself with, its own or its authority's.
    `models`: those that are used, all if empty. `abilities`: of all its models, if they
    are not told by their names. `last_resort`: only for what nothing else can serve.
    """

    url: str
    name: str = ""
    kind: ServerKind = "auto"
    key_file: str = ""
    ca_file: str = ""
    width: int = 0
    context: int = 0
    models: tuple[str, ...] = ()
    abilities: tuple[Ability, ...] = ()
    last_resort: bool = False

    def shown(self) -> dict[str, Any]:
        """Render it as a table that `server_from` takes."""
        default = ServerSetting(url=self.url)
        values = msgspec.to_builtins(self)
        return {
            name: value
            for name, value in values.items()
            if name == "url" or getattr(self, name) != getattr(default, name)
        }


KEYS = ServerSetting.__struct_fields__


class WrongServer(ValueError):
    """What is wrong with a server, as the end of a sentence that names its place."""


def server_from(table: Mapping[str, Any]) -> ServerSetting:
    """Return the server that a table describes. Raises WrongServer."""
    for key in table:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or f"; known: {', '.join(KEYS)}"
            raise WrongServer(f"unknown key `{key}`{hint}")
    for key, words in (("kind", KINDS), ("abilities", ABILITIES)):
        given = table.get(key, ())
        listed = given if isinstance(given, list | tuple) else [given]
        for each in cast("Sequence[Any]", listed):
            if each not in words:
                hint = did_you_mean(str(each), words)
                choice = ", ".join(words)
                raise WrongServer(f"`{key}` has {each!r}; it can be {choice}{hint}")
    try:
        found = msgspec.convert(dict(table), ServerSetting)
    except msgspec.ValidationError as error:
        raise WrongServer(str(error)) from error
    return _checked(found)


def _checked(found: ServerSetting) -> ServerSetting:
    if "@" in urlsplit(found.url).netloc:  # and not repeated: it has a secret
        raise WrongServer("`url` must have no name and password; name a key's file")
    if not is_url(found.url):
        raise WrongServer(
            f"`url` must be a URL such as http://gpu:8000, not {found.url!r}"
        )
    if len(found.name) > LONGEST or not found.name.isprintable():
        raise WrongServer(f"`name` has at most {LONGEST} characters, all printable")
    if not 0 <= found.width <= MOST_WIDTH:
        raise WrongServer(f"`width` must be between 0 and {MOST_WIDTH}")
    if found.context < 0:
        raise WrongServer("`context` must be at least 0")
    return found


def is_url(url: str) -> bool:
    """Whether it is an http or https URL with a host and, if any, a valid port."""
    try:
        parts = urlsplit(url)
        usual = parts.scheme in {"http", "https"} and "@" not in parts.netloc
        return usual and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def place_of(url: str) -> str:
    """Return a URL in the one spelling of all that mean the same place."""
    parts = urlsplit(url)
    port = _port_of(parts)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.hostname}:{port}{path}"


def _port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def server_collision(servers: Iterable[ServerSetting]) -> str:
    """Say which servers exclude each other; an empty text if none do."""
    places, names = set[str](), set[str]()
    for each in servers:
        if (place := place_of(each.url)) in places:
            return f"{each.url} is named twice"
        if each.name and each.name in names:
            return f"two servers are called {each.name}"
        places.add(place)
        names.add(each.name)
    return ""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Servers that are no nodes."""

    servers: tuple[str, ...] = setting(
        (),
        "URL of a server such as vLLM or Ollama. May be repeated.",
        flag="--server",
    )
    server_tables: tuple[ServerSetting, ...] = tables(
        "server",
        "Servers of other programs, in any number; `--server` with more said. kind:"
        " auto, openai, vllm, llama-server, ollama, sglang, tgi, lmstudio, localai,"
        " tensorrt-llm or ray-serve. key_file: the key that it asks for. ca_file: its"
        " certificate, if none of a known authority. width: requests that it answers at"
        " once. context: tokens. models and abilities: those that are used."
        " last_resort: only for requests that nothing else can serve.",
    )

    def check_servers(self: ServerSettings) -> None:
        """Refuse URLs that are none, and servers that are named twice."""
        section = cast("Section", self)
        for url in self.servers:
            a_url(section, "servers", url)
            if not is_url(url):
                wrong(section, "servers", "must be URLs such as http://gpu:8000")
        if problem := server_collision(self.all_servers()):
            wrong(section, "servers", f"must be different: {problem}")

    def all_servers(self) -> tuple[ServerSetting, ...]:
        """Return those of the flag, then those of the file."""
        return (*(ServerSetting(url=url) for url in self.servers), *self.server_tables)


@dataclass(frozen=True, kw_only=True)
class AdoptionSettings:
    """Servers of other programs on a node's machine."""

    adopt: bool = setting(
        False,
        "Lend the fleet Ollama, vLLM and other servers of this machine.",
    )
    adopt_urls: tuple[str, ...] = setting(
        (),
        "URL of such a server at another port of this machine. May be repeated.",
        flag="--adopt-url",
    )
    adopt_tables: tuple[ServerSetting, ...] = tables(
        "adopt",
        "Servers of other programs on a node's own machine, in any number;"
        " `--adopt-url` with more said, by the keys of [[server]]. The key in key_file"
        " stays on this machine.",
    )

    def check_adoption(self: AdoptionSettings) -> None:
        """Refuse URLs of other machines, and ports that are named twice."""
        section = cast("Section", self)
        for url in self.adopt_urls:
            if not _is_here(url):
                wrong(section, "adopt_urls", HERE)
        for each in self.adopt_tables:
            if not _is_here(each.url):
                wrong(section, "adopt_tables", HERE)
            if each.ca_file:
                why = "cannot have `ca_file`: use http, it stays on this machine"
                wrong(section, "adopt_tables", why)
        ports = [_port_of(urlsplit(each.url)) for each in self.named_servers()]
        if len(set(ports)) < len(ports):
            wrong(section, "adopt_urls", "must be different: a port is named twice")

    def named_servers(self) -> tuple[ServerSetting, ...]:
        """Return those of the flag, then those of the file."""
        return (
            *(ServerSetting(url=url) for url in self.adopt_urls),
            *self.adopt_tables,
        )


HERE = (
    "must be URLs on this machine such as http://127.0.0.1:5000;"
    " `edgeserve balancer start --server` takes those of others"
)


def _is_here(url: str) -> bool:
    if not is_url(url):
        return False
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_of(server: ServerSetting) -> Path | None:
    """Return the file with the server's key, if it has one."""
    return Path(server.key_file).expanduser() if server.key_file else None


def ca_of(server: ServerSetting) -> Path | None:
    """Return the file with the certificates that verify the server, if it has one."""
    return Path(server.ca_file).expanduser() if server.ca_file else None

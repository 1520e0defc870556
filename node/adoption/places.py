"""Adoption places: where on this machine servers of other programs may listen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from edgeserve.config.servers import AdoptionSettings, ServerSetting
from edgeserve.http.types import Origin, origin_of

USUAL_PORTS = (11434, 1234, 8000, 8080, 30000, 3000, 80)
"""Of Ollama; LM Studio; vLLM, Ray Serve, TensorRT-LLM and transformers; llama-server,
LocalAI and mlx_lm; SGLang; TGI in a container and outside."""


@dataclass(frozen=True)
class ServerPlace:
    """A port of this machine. `base` is a path there, without `/v1`.

    `named`: by a setting, so that its lack is a problem.
    """

    setting: ServerSetting
    origin: Origin
    base: str
    named: bool


def places(settings: AdoptionSettings) -> tuple[ServerPlace, ...]:
    """Return the places that are named, then the usual ones, if they are asked for."""
    named = [_place(each, named=True) for each in settings.named_servers()]
    ports = {each.origin.port for each in named}
    usual = [
        _place(ServerSetting(url=f"http://127.0.0.1:{port}"), named=False)
        for port in USUAL_PORTS
        if settings.adopt and port not in ports
    ]
    return (*named, *usual)


def _place(setting: ServerSetting, *, named: bool) -> ServerPlace:
    parts = urlsplit(setting.url)
    origin = origin_of(setting.url, 443 if parts.scheme == "https" else 80)
    base = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return ServerPlace(setting, origin, base, named)

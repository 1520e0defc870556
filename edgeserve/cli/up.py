"""`edgeserve up`: the command that serves on this machine, and its welcome."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeserve.cli.client import DEFAULT_URL, Endpoint
from edgeserve.cli.models.chatting import chatting
from edgeserve.cli.models.pull import fetched
from edgeserve.cli.serve_alone import Model, Plan, serve
from edgeserve.config.options import warn_of_unknown_variables
from edgeserve.config.paths import admin_key_file, config_dir
from edgeserve.config.settings import LOOPBACK, BalancerSettings, NodeSettings
from edgeserve.config.sources import Resolved, resolve
from edgeserve.errors import SettingsError
from edgeserve.help import examples
from edgeserve.http.sockets import bind
from edgeserve.models.download import CATALOG, DEFAULT, in_place
from edgeserve.runtime import lifecycle
from edgeserve.runtime.log import say
from edgeserve.security.tokens import read_api_keys

QUESTION = "Say hello."
LONGEST = 64
"""Longest answer, in tokens: so small a model may never end by itself."""


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """An endpoint that serves; `command` is how this terminal calls edgeserve."""

    url: str
    models: Sequence[Mapping[str, Any]]
    command: str
    key_file: Path | None = None

    def text(self) -> str:
        """Lay the lines out."""
        names = ", ".join(str(model["id"]) for model in self.models)
        url = "" if self.url == DEFAULT_URL else f" --url {self.url}"
        return "\n".join(
            (
                f"Serving {names} at {self.url}",
                "",
                "Ask it from a terminal:",
                f"  {self.curl()}",
                "",
                "or from Python (pip install openai):",
                f"  {self.python()}",
                "",
                f"or talk to it: {self.command} chat{url}",
                "Ctrl-C stops it.",
            )
        )

    def curl(self) -> str:
        """One shell line that gets an answer."""
        line = "curl -sS"
        if self.key_file:
            # The key itself would stay in the shell's history.
            first_key = f"grep -v '^#' {shlex.quote(str(self.key_file))} | head -n1"
            line += f' -H "Authorization: Bearer $({first_key})"'
        model = self._chatting()
        if model is None:
            return f"{line} {self.url}/v1/models"
        body = json.dumps({"model": model, **_example_request()})
        rest = ["-H", "Content-Type: application/json", "-d", body]
        return f"{line} {self.url}/v1/chat/completions {shlex.join(rest)}"

    def python(self) -> str:
        """One Python line that prints an answer, through OpenAI's client."""
        key = '"none"'
        if self.key_file:
            lines = f"open({json.dumps(str(self.key_file))})"
            key = f'[line.strip() for line in {lines} if line[0] != "#"][0]'
        client = f'OpenAI(base_url="{self.url}/v1", api_key={key})'
        model = self._chatting()
        if model is None:
            return f"from openai import OpenAI; print({client}.models.list().data)"
        fields = {"model": model, **_example_request()}
        asked = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return (
            f"from openai import OpenAI; print({client}.chat.completions"
            f".create({asked}).choices[0].message.content)"
        )

    def _chatting(self) -> str | None:
        return next(iter(chatting(self.models)), None)


def _example_request() -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"messages": messages, "max_tokens": LONGEST, "temperature": 0}


STOP_SECONDS = 10.0
"""Time to end the engines, once running requests are done."""

NEIGHBOURS = 10
"""Ports tried where the default one is taken."""


@click.command(
    epilog=examples(
        ("edgeserve up", "with a small model, fetched the first time (93 MB)"),
        ("edgeserve up --model my-model.gguf", "with your own; repeat for several"),
        ("edgeserve up --port 9000", "on another port"),
    )
)
@click.option(
    "--model", "models", multiple=True, help="GGUF file, or name. Repeatable."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="TCP port; by default 8080."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file.")
def up(models: tuple[str, ...], port: int | None, file: Path | None) -> None:
    """Serve on this machine alone.

    Starts a node and a balancer with a model, listens on loopback only, says how to
    ask, and stops with Ctrl-C.
    """
    warn_of_unknown_variables()
    node = resolve(NodeSettings, file=file, flags={"models": models})
    balancer = resolve(BalancerSettings, file=file, flags={"port": port})
    key_file = balancer.settings.api_key_file or config_dir() / "api-keys"
    keys = read_api_keys(balancer.settings.api_key_file)
    plan = planned(node, balancer, file, keys[0].value if keys else None)
    if not keys and plan.place.key_file:
        key_file = plan.place.key_file

    def greet(served: Sequence[Model]) -> None:
        welcome = Welcome(
            url=plan.place.url,
            models=served,
            command="edgeserve" if shutil.which("edgeserve") else sys.argv[0],
            key_file=key_file if keys or asks(balancer.settings) else None,
        )
        say(welcome.text())

    click.echo("starting; loading a model takes a few seconds", err=True)
    sys.exit(lifecycle.run(partial(serve, plan, greet), log_level="warning"))


def asks(settings: BalancerSettings) -> bool:
    """Whether the balancer has keys of clients, and asks for them."""
    from balancer.clients.store import all_keys, store_in

    try:
        has_keys = bool(all_keys(store_in(settings.state_dir)))
    except OSError:
        has_keys = True  # it lets no client in without one
    return has_keys and not settings.anonymous


def planned(
    node: Resolved[NodeSettings],
    balancer: Resolved[BalancerSettings],
    file: Path | None,
    api_key: str | None,
) -> Plan:
    """Turn settings into two commands; fetches the default model if it is needed."""
    if balancer.settings.tls or balancer.settings.tls_cert:
        raise SettingsError(
            "`edgeserve up` serves without TLS, which the settings ask for; use"
            " `edgeserve node start` and `edgeserve balancer start`"
        )
    back = port_near(node)
    front = port_near(balancer, but=back)
    wanted = balancer.settings.port
    if wanted not in {0, front}:
        click.echo(f"port {wanted} is not free; using {front}", err=True)
    backend = ["--port", str(back), "--no-advertise", *model_flags(node.settings)]
    frontend = ["--port", str(front), "--no-discover", "--node", _url(back)]
    common = ["--host", LOOPBACK, *(["--config", str(file)] if file else [])]
    if node.origins["log_level"] == "default":
        common += ["--log-level", "warning"]
    this = [sys.executable, "-m", "edgeserve"]
    return Plan(
        node=[*this, "node", "start", *common, *backend],
        balancer=[*this, "balancer", "start", *common, *frontend],
        place=Endpoint(
            _url(front), api_key, admin_key_file(balancer.settings.state_dir, front)
        ),
        load_seconds=node.settings.load_seconds,
        grace=node.settings.drain_seconds + STOP_SECONDS,
    )


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def port_near(
    found: Resolved[NodeSettings] | Resolved[BalancerSettings], but: int = 0
) -> int:
    """Return the port of the settings, or a free one near a default port.

    Raises SettingsError where a port that was set is taken.
    """
    port = found.settings.port
    was_set = found.origins["port"] != "default"
    for candidate in range(port, port + NEIGHBOURS):
        try:
            with closing(bind(LOOPBACK, candidate)) as sock:
                free: int = sock.getsockname()[1]
        except SettingsError:
            if was_set:
                raise
            continue
        if free != but:
            return free
    raise SettingsError(
        f"every port from {port} to {port + NEIGHBOURS - 1} is in use;"
        " choose one with --port"
    )


def model_flags(settings: NodeSettings) -> list[str]:
    """Return the node's model flags: the models that are set, else the default one.

    Models of the catalogue are fetched if they are not in the models folder. Raises
    SettingsError for a file that is not there.
    """
    others = settings.embedding_models or settings.rerank_models
    names = settings.models or (() if others else (DEFAULT.name,))
    folder, flags = settings.models_dir, list[str]()
    for name in names:
        known, file = CATALOG.get(name.lower()), Path(name).expanduser()
        there = file.is_file() or (folder / file).is_file()
        if name.endswith(".gguf") and not there:
            raise SettingsError(f"there is no file {name}, here or in {folder}")
        path = (in_place(known, folder) or fetched(known, folder)) if known else name
        flags += ["--model", str(path)]
    return flags

"""`edgeserve servers`: the commands that let servers of other programs serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.cli.client import (
    endpoint,
    endpoint_options,
    json_option,
    show,
    understood,
)
from edgeserve.config.servers import ABILITIES, KINDS
from edgeserve.errors import SettingsError, in_words
from edgeserve.help import Group, examples, under
from edgeserve.terminal import Entry, print_table

SERVERS = "/edgeserve/v1/servers"

HEADS = ("server", "state", "kind", "URL", "running", "set in")
PLACES = {"settings": "settings", "added": "here"}

LONGEST_FILE = 2**20
"""Bytes of a file with a key or with certificates."""

Json = Mapping[str, Any]


@click.group(cls=Group)
def servers() -> None:
    """Let servers of other programs serve in the fleet.

    vLLM, SGLang, TGI, llama-server, Ollama and others with OpenAI's API. The balancer
    finds out what a server is and has, and uses it as it uses the engines of nodes.
    """


@servers.command(
    epilog=examples(
        ("edgeserve servers add http://gpu:8000", "whatever it is"),
        ("edgeserve servers add https://gpu/v1 --key-file gpu.key", "with a key"),
        ("edgeserve servers add http://pi:11434 --width 2", "two requests at once"),
    )
)
@click.argument("server", metavar="URL")
@click.option("--name", default="", help="Name in lists; by default host and port.")
@under("What it is")(
    "--kind",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    metavar="KIND",
    help=f"What it is: {', '.join(KINDS)}; `openai` is any other.",
)
@under("Secrets")(
    "--key-file",
    type=click.Path(path_type=Path),
    help="File on this machine with the key that the server asks for.",
)
@under("Secrets")(
    "--ca-file",
    type=click.Path(path_type=Path),
    help="File on this machine with its certificate, or its authority's, as PEM.",
)
@under("What it is")(
    "--width", type=int, default=0, help="Requests that it answers at once."
)
@under("What it is")(
    "--context", type=int, default=0, help="Context of its models in tokens."
)
@under("What it is")(
    "--model", "models", multiple=True, help="Use only this model. May be repeated."
)
@under("What it is")(
    "--ability",
    "abilities",
    type=click.Choice(ABILITIES),
    multiple=True,
    help="What its models do, if their names do not tell. May be repeated.",
)
@click.option(
    "--last-resort", is_flag=True, help="Use it only where nothing else can serve."
)
@endpoint_options
def add(
    server: str,
    url: str,
    api_key_file: Path | None,
    key_file: Path | None,
    ca_file: Path | None,
    **said: Any,
) -> None:
    """Add a server while the balancer runs, and for its later starts.

    The balancer looks at it first: a server that does not answer, refuses its key or
    has no models is not added. The key is sent to the balancer, which keeps it in its
    state folder and shows it to none but the server. `edgeserve balancer start
    --server`, and [[server]] in its settings file, are for servers that always serve.
    """
    files = {"key": _content(key_file).strip(), "ca": _content(ca_file)}
    given = {name: value for name, value in (said | files).items() if value}
    found = endpoint(url, api_key_file).tell(SERVERS, {"url": server, **given})
    with understood(url):
        print_table(HEADS, server_rows([found]))


def _content(path: Path | None) -> str:
    """Read a file that is sent to the balancer. Raises SettingsError."""
    if path is None:
        return ""
    # Imported here: it would slow down `--help`.
    from edgeserve.runtime.files import read_text

    try:
        found = read_text(path.expanduser(), LONGEST_FILE)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {in_words(error)}") from error
    if not found.strip():
        raise SettingsError(f"{path} is empty")
    return found


@servers.command(
    "list",
    epilog=examples(
        ("edgeserve servers list", "with their models, and what was assumed"),
        ("edgeserve servers list --json", "for scripts"),
    ),
)
@endpoint_options
@json_option
def list_(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """List the servers: of the settings, added, and adopted by nodes."""
    found = endpoint(url, api_key_file).get(SERVERS)
    none = "no servers yet; `edgeserve servers add URL` adds one"
    show(url, found, HEADS, server_rows, none, as_json=as_json)


@servers.command(
    epilog=examples(
        ("edgeserve servers rm gpu:8000", "as `edgeserve servers list` names it"),
        ("edgeserve servers rm http://gpu:8000", "by its URL"),
    )
)
@click.argument("name", metavar="NAME|URL")
@endpoint_options
def rm(name: str, url: str, api_key_file: Path | None) -> None:
    """Remove a server that was added; requests that it answers go on.

    A server of the settings is removed there, and by a restart of the balancer.
    """
    path = f"{SERVERS}/{quote(name, safe='')}"
    found = endpoint(url, api_key_file).change("DELETE", path)
    with understood(url):
        click.echo(f"{found['name']} gets no requests any more")


def server_rows(found: list[Json]) -> list[Entry]:
    """Return one row per server; below it its models and what was assumed."""
    return [_entry(each) for each in found]


def _entry(server: Json) -> Entry:
    width = f"{server['running']} of {server['width']}" if server["width"] else ""
    place = PLACES.get(str(server["from"]), str(server["from"]))
    head = (str(server[name]) for name in ("name", "state", "kind", "url"))
    lines = [_model(each) for each in server["models"]]
    if server["last_resort"]:
        lines.append("only where nothing else can serve")
    lines += [str(each) for each in server["assumed"]]
    if server["problem"]:
        lines.append(str(server["problem"]))
    return Entry((*head, width, place), lines)


def _model(model: Json) -> str:
    abilities = ", ".join(map(str, model["abilities"]))
    context = f"{model['context']} tokens" if model["context"] else "context unknown"
    return f"{model['id']}: {context}; {abilities}"

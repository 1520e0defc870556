"""`edgeserve models rm` and `models --here`: files of models, on nodes and here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from edgeserve.cli.client import endpoint, endpoint_options, understood
from edgeserve.errors import CommandError, EdgeserveError, in_words
from edgeserve.help import Command, examples
from edgeserve.terminal import Row, for_terminal, print_table, printable

if TYPE_CHECKING:
    from node.models.library import Model, ModelLibrary

Json = Mapping[str, Any]

HERE = "here"
"""The node's name in tables, where no balancer was asked."""

here_option = click.option(
    "--here", is_flag=True, help="Show the files in this machine's models folder."
)


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models rm qwen3-4b:Q6_K", "from every node that has it"),
        ("edgeserve models rm qwen3-4b:Q6_K --node pi", "from one"),
        ("edgeserve models rm 'qwen3-4b:*' --here", "on this machine, without a node"),
    ),
)
@click.argument("name")
@click.option("--node", default="", help="Only from this node: its name or id.")
@click.option(
    "--here", is_flag=True, help="From this machine's folder, while no node runs here."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@endpoint_options
def rm(
    name: str, node: str, url: str, api_key_file: Path | None, *, here: bool, yes: bool
) -> None:
    """Remove a model's files from the machines that have it.

    NAME is a variant, a model that has only one, `MODEL:*` for all variants, or a file
    in the models folder. All parts go, and the projector if no other model uses it. Of
    an adopted model only the link goes. A model that an engine uses is not removed.
    """
    if here and node:
        raise click.UsageError("--here and --node exclude one another")
    if here:
        _remove_here(name, yes=yes)
        return
    path = f"/edgeserve/v1/models/{quote(name, safe='')}/remove"
    balancer = endpoint(url, api_key_file)
    found = balancer.tell(path, {"node": node, "preview": True})
    with understood(url):
        _ask(found["nodes"], yes=yes)
        removed = balancer.tell(path, {"node": node})
        _done(removed["nodes"])


def _remove_here(name: str, *, yes: bool) -> None:
    # Imported here: settings and models would slow down `--help`.
    from msgspec import to_builtins

    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve
    from node.discovery.identity import NodeRuns, no_node_in
    from node.models.removal import removal, remove

    settings = resolve(NodeSettings).settings
    try:
        with no_node_in(settings.state_dir):
            found = removal(settings.models_dir, name)
            shown = [{"name": HERE, **to_builtins(found.shown)}]
            _ask(shown, yes=yes)
            remove(found)
    except NodeRuns:
        raise CommandError(
            "a node runs here, which may use the model; without --here, the command"
            " asks it through the balancer"
        ) from None
    except EdgeserveError as error:
        raise CommandError(str(error)) from error
    _done(shown)


def _ask(nodes: Sequence[Json], *, yes: bool) -> None:
    """Show what would go, and ask. Raises CommandError where the answer is no."""
    print_table(
        ("node", "file", "size"), [each for node in nodes for each in _rows(node)]
    )
    if not yes and not (sys.stdin.isatty() and click.confirm("Remove these?")):
        raise CommandError("nothing was removed; --yes removes without a question")


def _rows(node: Json) -> Iterator[Row]:
    from edgeserve.models.memory import size

    for each in node["files"]:
        what = "a link" if each.get("target") else size(each["bytes"])
        yield str(node["name"]), str(each["path"]), what


def _done(nodes: Sequence[Json]) -> None:
    from edgeserve.models.memory import size

    freed = sum(each["bytes"] for node in nodes for each in node["files"])
    click.echo(f"removed; {size(freed)} came free" if freed else "removed")


def show_here(*, as_json: bool) -> None:
    """Show what lies in the models folder, used or not. Asks no balancer."""
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve
    from node.models.library import scan

    folder = resolve(NodeSettings).settings.models_dir
    try:
        library = scan(folder)
    except OSError as error:
        raise CommandError(f"cannot read {folder}: {in_words(error)}") from error
    if as_json:
        click.echo(json.dumps(_listed(library, folder), indent=2))
        return
    if library.models:
        rows = [_row(each, folder) for each in library.models]
        print_table(("model", "size", "from", "file"), rows)
    for each in library.unusable:
        sentence = f"edgeserve: {printable(each.reason)}"
        click.echo(for_terminal(sentence), err=True)
    if not library.models and not library.unusable:
        none = f"no model in {folder}; `edgeserve pull` and `models adopt` bring some"
        click.echo(none, err=True)


def _row(model: Model, folder: Path) -> Row:
    from edgeserve.models.memory import size

    total = size(model.facts.file_bytes + model.projector_bytes)
    path = model.path.relative_to(folder)
    return model.variant, total, _origin(model.path, folder), str(path)


def _origin(path: Path, folder: Path) -> str:
    """Return which program a model was adopted from; "" for our own."""
    from edgeserve.models.adopt.links import ADOPTED
    from edgeserve.models.adopt.stores import TITLES

    first, *rest = path.relative_to(folder).parts
    if first != ADOPTED or len(rest) < 2:
        return ""
    return {str(kind): title for kind, title in TITLES.items()}.get(rest[0], rest[0])


def _listed(library: ModelLibrary, folder: Path) -> Json:
    models = [
        {
            "model": each.model,
            "variant": each.variant,
            "bytes": each.facts.file_bytes + each.projector_bytes,
            "from": _origin(each.path, folder),
            "files": [str(file) for file in each.files],
            "target": str(each.path.readlink()) if each.path.is_symlink() else "",
        }
        for each in library.models
    ]
    unusable = [
        {"file": str(each.path), "reason": each.reason} for each in library.unusable
    ]
    return {"folder": str(folder), "models": models, "unusable": unusable}

"""`edgeserve models adopt`: use models of other programs, read in place."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.errors import CommandError
from edgeserve.help import Command, examples
from edgeserve.terminal import Entry, Row, for_terminal, print_table, printable

if TYPE_CHECKING:
    from edgeserve.models.adopt.links import Adoption
    from edgeserve.models.adopt.stores import Adoptable

HEADS = ("model", "size", "from", "")


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve models adopt", "show what other programs have here, and ask"),
        ("edgeserve models adopt --yes", "without a question, for scripts"),
        ("edgeserve models adopt /mnt/big/gguf", "models of any folder"),
    ),
)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--models-dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to link them into. Default: the models folder.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(paths: Sequence[Path], folder: Path | None, *, yes: bool) -> None:
    """Use models of other programs, read in place.

    Looks through the folders of LM Studio and Ollama and the Hugging Face cache, or
    through each PATH: such a folder, or any other with GGUF files. Nothing is copied:
    for each model, links are made in `adopted` in the models folder, from where a node
    serves it. `edgeserve models rm` removes links and leaves the files.

    Models that these programs fetch later are found when the command is given again; it
    also renews links to what they have replaced, and removes those to what they have
    deleted.
    """
    # Imported here: settings would slow down `--help`.
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve
    from edgeserve.models.adopt import links
    from edgeserve.models.adopt.stores import recognised, usual
    from node.models.library import scan

    folder = folder or resolve(NodeSettings).settings.models_dir
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - raises nothing without a home
    stores = [recognised(each) for each in paths] or usual(os.environ, home)
    found = [links.find(each, folder) for each in dict.fromkeys(stores)]
    named = {each.variant: each.path for each in scan(folder).models}
    adoptions = links.plan_links(found, folder, named)
    for each in adoptions:
        _show(each, folder)
    if not stores:
        click.echo("LM Studio, Ollama and the Hugging Face cache have no folder here")
    elif not (to_do := _to_do(adoptions)):
        click.echo("nothing is new")
    elif yes or _agreed(f"{to_do} in {folder / links.ADOPTED}?"):
        problems = [why for each in adoptions for why in links.adopt(each, folder)]
        _note(problems)
        if problems:
            raise CommandError("not everything could be linked; the rest is")
        click.echo("done; a node that runs here serves what fits within seconds")
    else:
        click.echo(f"nothing was changed; with --yes: {to_do}")


def _show(adoption: Adoption, folder: Path) -> None:
    from edgeserve.models.adopt.links import place

    store = adoption.found.store
    rows = [(each.name, Entry(_cells(each, "new"))) for each in adoption.new]
    for each, path in adoption.known:
        own = path == place(each.links[-1], store, folder)
        below = [] if own else [f"not linked: {path} has this name, or is the same"]
        rows.append((each.name, Entry(_cells(each, "adopted" if own else ""), below)))
    click.echo(printable(store.title))
    if rows:
        print_table(HEADS, [entry for _, entry in sorted(rows, key=lambda row: row[0])])
    elif not adoption.problems:
        click.echo("  no models")
    _note([f"{path}: its file is gone" for path in adoption.gone])
    _note(adoption.problems)


def _cells(model: Adoptable, state: str) -> Row:
    from edgeserve.models.memory import size

    return model.variant, size(model.size), model.name, state


def _note(sentences: Sequence[str]) -> None:
    for each in sentences:
        click.echo(for_terminal(f"edgeserve: {printable(each)}"), err=True)


def _to_do(adoptions: Sequence[Adoption]) -> str:
    """Say what would be done; "" where there is nothing."""
    new = sum(len(each.new) for each in adoptions)
    gone = sum(len(each.gone) for each in adoptions)
    link = [f"link {new} {'model' if new == 1 else 'models'}"] if new else []
    remove = [f"remove {gone} dead {'link' if gone == 1 else 'links'}"] if gone else []
    return " and ".join(link + remove)


def _agreed(question: str) -> bool:
    """Ask at a terminal; elsewhere the answer is no."""
    return sys.stdin.isatty() and click.confirm(question[0].upper() + question[1:])

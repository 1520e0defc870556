"""`edgeserve pull`: the command that fetches a known model, with a progress bar."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.errors import SettingsError
from edgeserve.help import examples
from edgeserve.models.download import CATALOG, MIB, Known, fetch, intact
from edgeserve.suggestions import did_you_mean
from edgeserve.terminal import Entry, print_table


@click.command(
    epilog=examples(
        ("edgeserve pull", "list what can be fetched"),
        ("edgeserve pull smollm2-135m-instruct", "fetch it, or check the copy here"),
    )
)
@click.argument("name", required=False)
@click.option(
    "--models-dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to write to. Default: the models folder.",
)
def pull(name: str | None, folder: Path | None) -> None:
    """Fetch a model into the models folder.

    It is verified there, and a damaged one replaced. Any GGUF file can be put into the
    folder by hand as well.
    """
    # Imported here: settings would slow down `--help`.
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve

    folder = folder or resolve(NodeSettings).settings.models_dir
    if name is None:
        _list(folder)
        return
    known = CATALOG.get(name.lower())
    if known is None:
        raise SettingsError(
            f"{name!r} is not in the catalogue, which has: {', '.join(CATALOG)};"
            f" other GGUF files can be copied into {folder}"
            f"{did_you_mean(name, CATALOG)}"
        )
    there = folder / known.file if intact(known, folder) else None
    click.echo(there or fetched(known, folder, anew=True))


def fetched(known: Known, folder: Path, *, anew: bool = False) -> Path:
    """Fetch the model with progress bars on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = dict[str, TaskID]()

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(f"{known.file}: {step}")
            bars.update(tasks[step], completed=done, total=total)

        return fetch(known, folder, show, anew=anew)


def _list(folder: Path) -> None:
    rows = list[Entry]()
    for known in CATALOG.values():
        here = "yes" if (folder / known.file).exists() else "no"
        cells = (known.name, f"{known.size // MIB} MiB", here)
        rows.append(Entry(cells, [f"{known.about}; {known.licence}"]))
    print_table(("model", "size", "here"), rows)

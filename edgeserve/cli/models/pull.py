"""`edgeserve pull`: the command that fetches a model, with progress bars."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.cli.client import endpoint, endpoint_options
from edgeserve.cli.models.bars import progress
from edgeserve.help import Command, examples
from edgeserve.models.download import CATALOG, MIB, Known, fetch, intact
from edgeserve.models.pull.sources import Source, UnknownSource, parse
from edgeserve.suggestions import did_you_mean
from edgeserve.terminal import Entry, print_table


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve pull", "list the built-in names"),
        ("edgeserve pull smollm2-135m-instruct", "fetch it, or check the copy here"),
        ("edgeserve pull hf.co/unsloth/Qwen3-4B-GGUF", "as Q4_K_M if it has that"),
        ("edgeserve pull unsloth/Qwen3-4B-GGUF:Q6_K", "a certain quantization"),
        ("edgeserve pull hf://ORG/REPOSITORY/FILE.gguf", "a certain file"),
        ("edgeserve pull https://example.org/FILE.gguf", "from the web"),
        ("edgeserve pull /media/stick/FILE.gguf", "copy a file of this machine"),
        ("edgeserve pull unsloth/Qwen3-4B-GGUF --everywhere", "on every node"),
        ("edgeserve pull qwen3-4b --to pi", "from the nodes that have it"),
    ),
)
@click.argument("source", required=False)
@click.option(
    "--models-dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to write to. Default: the models folder.",
)
@click.option(
    "--revision", default="", help="Branch, tag or commit of a repository of the hub."
)
@click.option(
    "--to", "names", multiple=True, help="Name or id of a node. May be repeated."
)
@click.option("--everywhere", is_flag=True, help="Have every node that is up pull it.")
@click.option("--cancel", is_flag=True, help="Stop the nodes' pulls of it.")
@endpoint_options
def pull(
    source: str | None,
    folder: Path | None,
    revision: str,
    url: str,
    api_key_file: Path | None,
    names: tuple[str, ...],
    *,
    everywhere: bool,
    cancel: bool,
) -> None:
    """Fetch a model, here or on nodes of the fleet.

    SOURCE is a built-in name, a repository or file of the Hugging Face hub, a URL or a
    path. The other parts of a split model and its projector (mmproj) come along. Room
    on the disk is checked first, checksums at the end; a damaged copy is replaced. An
    interrupted download goes on where it stopped, when the command is given again.

    The hub's own settings apply: HF_TOKEN for gated and private repositories,
    HF_ENDPOINT for a mirror, HF_HUB_OFFLINE to take only what its cache has. Any GGUF
    file can be put into the folder by hand as well.

    With --to or --everywhere nodes do it, with settings of their own. They take each
    file from other nodes that have it, so that it is downloaded once for all. SOURCE
    may be the name of a model that some node has. Ctrl-C leaves the nodes at work; the
    same command shows them again, --cancel stops them and keeps what has come.
    """
    if names or everywhere or cancel:
        if folder or not source:
            raise click.UsageError("name a SOURCE; each node has a folder of its own")
        # Imported here: most pulls are of this machine.
        from edgeserve.cli.models.fleet_pull import pull_on_nodes, stop
        from edgeserve.orders.pulls import FleetPull

        order = FleetPull(
            source=source, revision=revision, nodes=names, everywhere=everywhere
        )
        fleet = endpoint(url, api_key_file)
        return stop(fleet, order) if cancel else pull_on_nodes(fleet, order)
    # Imported here: settings would slow down `--help`.
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve
    from edgeserve.models.pull.plan import at_revision

    folder = folder or resolve(NodeSettings).settings.models_dir
    if source is None:
        _list(folder)
    elif known := CATALOG.get(source.lower()):
        there = folder / known.file if intact(known, folder) else None
        click.echo(there or fetched(known, folder, anew=True))
    else:
        found = at_revision(_parsed(source, folder), revision)
        click.echo(_pulled(found, folder))
    return None


def _parsed(source: str, folder: Path) -> Source:
    """Read a source. Raises UnknownSource, with what is possible."""
    try:
        return parse(source, exists=Path(source).expanduser().is_file())
    except UnknownSource as error:
        names = "; built-in names: " + ", ".join(CATALOG)
        hint = did_you_mean(source, CATALOG)
        raise UnknownSource(
            f"{error}{names}; other GGUF files can be copied into {folder}{hint}"
        ) from None


def _pulled(source: Source, folder: Path) -> Path:
    from edgeserve.models.pull.arrival import arrive, namesakes
    from edgeserve.models.pull.plan import planned

    with progress() as show:
        plan = planned(source, folder, show)
        path = arrive(plan.files, folder, show)
    namesake = (
        f"{other} has the same file name, so nodes give both one model name; to"
        " choose, name the file: edgeserve node start --model PATH"
        for other in namesakes(path, folder)
    )
    for note in (*plan.notes, *namesake):
        click.echo(f"edgeserve: {note}", err=True)
    return path


def fetched(known: Known, folder: Path, *, anew: bool = False) -> Path:
    """Fetch a built-in model with progress bars on standard error."""
    with progress() as show:
        return fetch(
            known,
            folder,
            lambda step, done, total: show(f"{known.file}: {step}", done, total),
            anew=anew,
        )


def _list(folder: Path) -> None:
    rows = list[Entry]()
    for known in CATALOG.values():
        here = "yes" if (folder / known.file).exists() else "no"
        cells = (known.name, f"{known.size // MIB} MiB", here)
        rows.append(Entry(cells, [f"{known.about}; {known.licence}"]))
    print_table(("model", "size", "here"), rows)

"""`edgeserve engine`: the commands that build engines and choose among builds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgeserve.help import Group, examples

if TYPE_CHECKING:
    from node.engine_build.backends import Backend
    from node.engines.builds import Build

state_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="State folder; builds are in its `engines`. Default: from the settings.",
)


OTHER_COMPILER = (
    "GCC 13 or clang 16 may build with it: CC=clang-16 CXX=clang++-16 edgeserve engine"
    " build"
)

NO_DOT_PRODUCT = (
    "this processor has no dot-product instructions, as before the Raspberry Pi 5; it"
    " reads prompts several times slower than one that has them"
)

HEADS = ("", "build", "backend", "llama.cpp", "compiler", "devices", "made")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def engine() -> None:
    """Build llama.cpp for this machine's own processor and GPU.

    Without a build, nodes run the bundled engine: it needs no compiler, runs on any
    processor, and uses no GPU.
    """


@engine.command(
    epilog=examples(
        ("edgeserve engine build", "for this processor, and its GPU if possible"),
        ("edgeserve engine build --backend cuda --jobs 8", "with these options"),
    )
)
@click.option(
    "--backend",
    type=click.Choice(("auto", "cpu", "cuda", "vulkan", "metal")),
    default="auto",
    show_default=True,
    help="Hardware that the engine computes on.",
)
@click.option(
    "--jobs",
    type=click.IntRange(0),
    default=0,
    help="Number of parallel compilers. 0: chosen by cores and memory.",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True),
    help="Sdist of llama-cpp-python, or folder of llama.cpp. Default: downloaded.",
)
@click.option(
    "--cuda-architectures",
    "architectures",
    default="",
    help="GPUs to build for, as for cmake, such as 86;89. Then none has to be here, and"
    " the build is also for other machines. Default: the GPUs here.",
)
@state_option
def build(
    backend: str,
    jobs: int,
    source: Path | None,
    architectures: str,
    state_dir: Path | None,
) -> None:
    """Compile llama-server and the tools; takes minutes to an hour.

    Nodes use it from their next start. Older builds stay: see `list` and `use`.
    """
    from edgeserve.runtime.lifecycle import interruptible
    from node.engine_build.backends import WITHOUT_AMX, without_dot_product
    from node.engine_build.build import BuildOptions, build
    from node.engine_build.progress import shown_steps
    from node.engine_build.toolchain import look

    if architectures and backend != "cuda":
        raise click.UsageError("--cuda-architectures needs --backend cuda")
    options = BuildOptions(
        state_dir=state_dir or _state_dir(),
        backend=None if backend == "auto" else cast("Backend", backend),
        jobs=jobs,
        source=source,
        architectures=architectures,
    )
    with interruptible(), shown_steps() as show:
        found = look()
        made = build(options, found, show)
    click.echo(f"{made.name} works; nodes use it from their next start.")
    if any(WITHOUT_AMX in flag for flag in made.flags):
        click.echo(f"  without AMX, because of {made.compiler}; {OTHER_COMPILER}")
    if without_dot_product(found):
        click.echo(f"  {NO_DOT_PRODUCT}")
    for device in made.devices:
        click.echo(f"  {device}")


@engine.command(
    "list",
    epilog=examples(("edgeserve engine list", "each build, its backend and devices")),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def list_(as_json: bool, state_dir: Path | None) -> None:
    """Show the builds, and which one nodes use."""
    from node.engines.builds import builds, in_use

    where = state_dir or _state_dir()
    there, current = builds(where), in_use(where)
    if as_json:
        import msgspec

        value = {"current": current, "builds": there}
        click.echo(msgspec.json.format(msgspec.json.encode(value)))
    elif there:
        _print_table(there, current)
    else:
        click.echo("no builds; `edgeserve engine build` makes one")


@engine.command(
    "use",
    epilog=examples(("edgeserve engine use 0c1e57098-cpu", "go back to that build")),
)
@click.argument("name", metavar="BUILD")
@state_option
def use_(name: str, state_dir: Path | None) -> None:
    """Make nodes use this build from their next start."""
    from node.engines.builds import use

    use(state_dir or _state_dir(), name)
    click.echo(f"nodes use {name} from their next start")


def _state_dir() -> Path:
    from edgeserve.config.settings import NodeSettings
    from edgeserve.config.sources import resolve

    return resolve(NodeSettings).settings.state_dir


def _print_table(there: list[Build], current: str | None) -> None:
    from edgeserve.terminal import print_table

    rows = [
        (
            "in use" if each.name == current else "",
            each.name,
            each.backend,
            each.version,
            each.compiler,
            ", ".join(each.devices) or "processor",
            each.made,
        )
        for each in there
    ]
    print_table(HEADS, rows)

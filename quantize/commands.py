"""`edgeserve quantize …`: make smaller variants of a model, and measure them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.examples import examples

if TYPE_CHECKING:
    from quantize.facts import ModelFacts

MODEL = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
threads_option = click.option(
    "--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 uses all."
)
kv_option = click.option(
    "--kv-type",
    type=click.Choice(
        ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32")
    ),
    default="f16",
    show_default=True,
    help="Type of keys and values.",
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Tokens per computation.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def quantize() -> None:
    """Make a model fit a machine: smaller variants of it, sized and measured."""


@quantize.command(
    epilog=examples(
        (
            "edgeserve quantize inspect model.gguf",
            "what is in it, and how much memory it needs",
        ),
    )
)
@click.argument("file", type=MODEL)
@kv_option
@batch_option
@as_json
def inspect(file: Path, kv_type: str, batch: int, as_json: bool) -> None:
    """Show what a GGUF model is and what serving it takes."""
    from quantize import show

    facts = _read(file)
    table = show.needs(facts, kv_type, batch)
    if as_json:
        _print_json(show.facts_json(facts, table))
        return
    _print(show.facts_table(facts), show.misfit(facts), show.needs_table(table))


@quantize.command(
    epilog=examples(
        ("edgeserve quantize plan model.gguf --machine pi5-8gb", "what fits there"),
        (
            "edgeserve quantize plan model.gguf --memory 4GiB --slots 2",
            "or into so much",
        ),
    )
)
@click.argument("file", type=MODEL)
@click.option("--types", default="", help="Types to look at, separated by commas.")
@click.option(
    "--machine", "machines", multiple=True, help="Such as pi5-8gb; repeatable."
)
@click.option("--memory", multiple=True, help="Free memory, such as 4GiB; repeatable.")
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--context",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Tokens per slot.",
)
@kv_option
@batch_option
@as_json
def plan(
    file: Path,
    types: str,
    machines: tuple[str, ...],
    memory: tuple[str, ...],
    slots: int,
    context: int,
    kv_type: str,
    batch: int,
    as_json: bool,
) -> None:
    """Show which variants fit which memory, by llama.cpp's own dry run."""
    from quantize import machines as places
    from quantize import show
    from quantize.child import require_library
    from quantize.dry import dry_run
    from quantize.plan import Serving, judge
    from quantize.types import USUAL, parse

    kinds = parse(types or USUAL)
    where = places.find(machines, memory)
    facts = _read(file)
    require_library()
    serving = Serving(slots=slots, context=context, kv_type=kv_type, ubatch=batch)
    verdicts = judge(facts, [dry_run(facts, each) for each in kinds], where, serving)
    if as_json:
        _print_json(show.plan_json(verdicts, where))
        return
    _print(show.misfit(facts), show.plan_table(verdicts, where))


@quantize.command(
    epilog=examples(
        ("edgeserve quantize run model.gguf --types Q4_K_M,Q8_0", "make these two"),
    )
)
@click.argument("file", type=MODEL)
@click.option("--types", required=True, help="Such as Q4_K_M,Q8_0.")
@click.option("--imatrix", type=MODEL, help="Importance matrix (GGUF).")
@click.option("--calibrate", type=MODEL, help="Text to make an importance matrix from.")
@click.option(
    "--tensor-type",
    "overrides",
    multiple=True,
    metavar="REGEX=TYPE",
    help="Type for the tensors whose names match; repeatable.",
)
@click.option(
    "--allow-requantize", is_flag=True, help="Quantize a quantized model again."
)
@click.option("--overwrite", is_flag=True, help="Replace files made otherwise.")
@threads_option
@click.option("--out", type=FOLDER, help="Folder; by default the model's own.")
def run(
    file: Path,
    types: str,
    imatrix: Path | None,
    calibrate: Path | None,
    overrides: tuple[str, ...],
    allow_requantize: bool,
    overwrite: bool,
    threads: int,
    out: Path | None,
) -> None:
    """Make variants: beside, verified, then named. Goes on where it broke off."""
    from quantize.calibrate import importance_matrix
    from quantize.interrupt import interruptible
    from quantize.overrides import parse_override
    from quantize.run import Order, make
    from quantize.types import parse
    from quantize.watch import ProgressWatch, progress_bars

    kinds = parse(types)
    facts = _read(file)
    names = [tensor.name for tensor in facts.tensors]
    with interruptible(), progress_bars() as progress:
        order = Order(
            base=facts,
            types=kinds,
            folder=out or file.parent,
            overrides=tuple(parse_override(text, names) for text in overrides),
            imatrix=imatrix or importance_matrix(facts, calibrate, out, threads),
            allow_requantize=allow_requantize,
            overwrite=overwrite,
            threads=threads,
        )
        make(order, ProgressWatch(progress))


@quantize.command(
    epilog=examples(
        (
            "edgeserve quantize compare model.F16.gguf model.Q4_K_M.gguf",
            "what it costs",
        ),
    )
)
@click.argument("base", type=MODEL)
@click.argument("variants", type=MODEL, nargs=-1, required=True)
@click.option("--text", type=MODEL, help="UTF-8 text; by default one of our own.")
@click.option(
    "--context",
    type=click.IntRange(16),
    default=512,
    show_default=True,
    help="Tokens per chunk; the second half of each is scored.",
)
@click.option(
    "--chunks", type=click.IntRange(0), default=0, help="Chunks read; 0 reads all."
)
@click.option("--speed/--no-speed", default=True, help="Measure speed too.")
@threads_option
@click.option("--out", type=FOLDER, help="Folder; by default the first variant's.")
@as_json
def compare(
    base: Path,
    variants: tuple[Path, ...],
    text: Path | None,
    context: int,
    chunks: int,
    speed: bool,
    threads: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure what variants lose and gain against their base, on this machine."""
    from quantize import report
    from quantize.interrupt import interruptible
    from quantize.manifest import write_json
    from quantize.naming import stem
    from quantize.quality import OWN_TEXT, Question, compare
    from quantize.watch import ComparisonWatch, progress_bars

    question = Question(
        base=base,
        variants=variants,
        text=text or OWN_TEXT,
        context=context,
        chunks=chunks,
        threads=threads,
        repeats=3 if speed else 0,
    )
    folder = out or variants[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with interruptible(), progress_bars() as progress:
        found = compare(question, folder, ComparisonWatch(progress))
    target = folder / f"{stem(base)}.compare.json"
    write_json(target, found)
    report.picture(found, target.with_suffix(".png"))
    if as_json:
        click.echo(target.read_text(encoding="utf-8"))
        return
    _print(report.table(found), f"{target} and {target.with_suffix('.png')}")


@quantize.command(
    epilog=examples(
        ("edgeserve quantize dequantize model.Q4_1.gguf", "to quantize it anew"),
    )
)
@click.argument("file", type=MODEL)
@click.option(
    "--to", type=click.Choice(("F16", "BF16", "F32")), default="F16", show_default=True
)
@click.option("--out", type=FOLDER, help="Folder; by default the model's own.")
def dequantize(file: Path, to: str, out: Path | None) -> None:
    """Write a quantized model wide, as a stated base for variants.

    What quantizing lost does not come back, and the name says `dequantized`.
    """
    from quantize import dequantize as wide
    from quantize.interrupt import interruptible
    from quantize.watch import progress_bars

    facts = _read(file)
    target = wide.dequantized_path(out or file.parent, file, to)
    with interruptible(), progress_bars() as progress:
        task = progress.add_task(to, total=len(facts.tensors), now="")
        wide.dequantize(
            facts,
            target,
            to,
            lambda tensor: progress.update(task, advance=1, now=tensor.name),
        )
    click.echo(target)


def _read(file: Path) -> ModelFacts:
    from quantize.facts import read

    return read(file)


def _print(*parts: object) -> None:
    from rich.console import Console

    console = Console()
    for part in parts:
        if part:
            console.print(part)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))

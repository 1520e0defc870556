"""The commands that make and measure variants: run, compare, dequantize."""

from __future__ import annotations

from pathlib import Path

import click

from edgeserve.examples import examples
from quantize.options import FOLDER, MODEL, as_json, read, show, threads_option


@click.command(
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
    from quantize.interrupt import interruptible
    from quantize.overrides import parse_override
    from quantize.run import Order, make
    from quantize.types import parse
    from quantize.watch import ProgressWatch, progress_bars

    kinds = parse(types)
    facts = read(file)
    names = [tensor.name for tensor in facts.tensors]
    with interruptible(), progress_bars() as progress:
        order = Order(
            base=facts,
            types=kinds,
            folder=out or file.parent,
            overrides=tuple(parse_override(text, names) for text in overrides),
            imatrix=imatrix,
            calibrate=calibrate,
            allow_requantize=allow_requantize,
            overwrite=overwrite,
            threads=threads,
        )
        make(order, ProgressWatch(progress))


@click.command(
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
    """Measure what variants lose and gain, on this machine."""
    from edgeserve.files import replace_json
    from quantize import report
    from quantize.interrupt import interruptible
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
    replace_json(target, found)
    report.picture(found, target.with_suffix(".png"))
    if as_json:
        click.echo(target.read_text(encoding="utf-8"))
        return
    show(report.table(found), f"{target} and {target.with_suffix('.png')}")


@click.command(
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

    facts = read(file)
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

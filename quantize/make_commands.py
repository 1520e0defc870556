"""`edgeserve quantize run`, `compare`, `dequantize`: commands that write files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.help import Command, examples
from edgeserve.models.blocks import KV_TYPES
from edgeserve.terminal import console

if TYPE_CHECKING:
    from edgeserve.models.facts import ModelFacts

MODEL = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
threads_option = click.option(
    "--threads", type=click.IntRange(0), default=0, help="CPU threads. 0: all."
)
kv_option = click.option(
    "--kv-type",
    type=click.Choice(KV_TYPES),
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


def read(file: Path) -> ModelFacts:
    """Read the facts of a model; imported here so that `--help` stays fast."""
    from edgeserve.models import facts

    return facts.read(file)


def show(*parts: object) -> None:
    """Print tables and sentences that are not empty."""
    out = console()
    for part in parts:
        if part:
            out.print(part)


def show_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve quantize run model.gguf --types Q4_K_M,Q8_0", "make two variants"),
    ),
)
@click.argument("file", type=MODEL)
@click.option("--types", required=True, help="Types to make, such as Q4_K_M,Q8_0.")
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
@click.option(
    "--overwrite", is_flag=True, help="Replace files made with other settings."
)
@threads_option
@click.option("--out", type=FOLDER, help="Folder to write to; by default the model's.")
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
    """Make variants, and verify each. An interrupted run resumes where it stopped."""
    from edgeserve.quantization import parse
    from edgeserve.runtime.lifecycle import interruptible
    from quantize.make import MakeOptions, make
    from quantize.overrides import parse_override
    from quantize.progress import MakeProgress, progress_bars

    kinds = parse(types)
    facts = read(file)
    names = [tensor.name for tensor in facts.tensors]
    with interruptible(), progress_bars() as progress:
        options = MakeOptions(
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
        make(options, MakeProgress(progress))


@click.command(
    cls=Command,
    epilog=examples(
        (
            "edgeserve quantize compare model.F16.gguf model.Q4_K_M.gguf",
            "how much worse, and how much faster",
        ),
    ),
)
@click.argument("base", type=MODEL)
@click.argument("variants", type=MODEL, nargs=-1, required=True)
@click.option("--text", type=MODEL, help="UTF-8 text; by default the built-in one.")
@click.option(
    "--context",
    type=click.IntRange(16),
    default=512,
    show_default=True,
    help="Tokens per chunk; the second half of each is scored.",
)
@click.option(
    "--chunks",
    type=click.IntRange(0),
    default=0,
    help="Number of chunks to read. 0: all.",
)
@click.option("--speed/--no-speed", default=True, help="Measure speed too.")
@threads_option
@click.option(
    "--out", type=FOLDER, help="Folder to write to; by default the first variant's."
)
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
    """Measure quality, size and speed of variants on this machine."""
    from edgeserve.models.comparison import OWN_TEXT
    from edgeserve.models.naming import stem
    from edgeserve.runtime.files import replace_json
    from edgeserve.runtime.lifecycle import interruptible
    from quantize import report
    from quantize.compare import CompareOptions, compare
    from quantize.progress import CompareProgress, progress_bars

    options = CompareOptions(
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
        found = compare(options, folder, CompareProgress(progress))
    target = folder / f"{stem(base)}.compare.json"
    replace_json(target, found)
    report.picture(found, target.with_suffix(".png"))
    if as_json:
        click.echo(target.read_text(encoding="utf-8"))
        return
    show(report.table(found), f"{target} and {target.with_suffix('.png')}")


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve quantize dequantize model.Q4_1.gguf", "to quantize it again"),
    ),
)
@click.argument("file", type=MODEL)
@click.option(
    "--to", type=click.Choice(("F16", "BF16", "F32")), default="F16", show_default=True
)
@click.option("--out", type=FOLDER, help="Folder to write to; by default the model's.")
def dequantize(file: Path, to: str, out: Path | None) -> None:
    """Convert a quantized model to full width, as a base for variants.

    Lost precision does not come back; the file name says `dequantized`.
    """
    from edgeserve.runtime.lifecycle import interruptible
    from quantize import dequantize as conversion
    from quantize.progress import progress_bars

    facts = read(file)
    target = conversion.dequantized_path(out or file.parent, file, to)
    with interruptible(), progress_bars() as progress:
        task = progress.add_task(to, total=len(facts.tensors), now="")
        conversion.dequantize(
            facts,
            target,
            to,
            lambda tensor: progress.update(task, advance=1, now=tensor.name),
        )
    click.echo(target)

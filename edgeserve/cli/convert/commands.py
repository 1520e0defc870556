"""`edgeserve quantize convert`: added to its group here, as it needs node's parts."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from edgeserve.help import examples
from quantize.commands import quantize
from quantize.make_commands import FOLDER

QUANTIZED = "q8_0"
"""The type that is no base for others."""

__all__ = ["convert", "quantize"]


@quantize.command(
    epilog=examples(
        ("edgeserve quantize convert SmolLM2-135M", "then `quantize run` as usual"),
    )
)
@click.argument("folder", type=FOLDER)
@click.option(
    "--outfile",
    type=click.Path(path_type=Path),
    help="File or folder to write to; by default the model's folder.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(("f16", "bf16", "f32", QUANTIZED), case_sensitive=False),
    default="f16",
    show_default=True,
    help="Type of the weights.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@click.option(
    "--check/--no-check", default=True, help="Have the model answer once; the default."
)
@click.option(
    "--trust-code", is_flag=True, help="Run Python that the folder's configs name."
)
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True),
    help="Sdist of llama-cpp-python, or folder of llama.cpp. Default: downloaded.",
)
def convert(
    folder: Path,
    outfile: Path | None,
    kind: str,
    overwrite: bool,
    check: bool,
    trust_code: bool,
    source: Path | None,
) -> None:
    """Make a GGUF from a Hugging Face folder (safetensors).

    llama.cpp's own converter does it, which needs PyTorch. The bundled engine then
    tries tokenizer and chat template with one answer.
    """
    from edgeserve.cli.convert.steps import ConvertOptions, converted
    from edgeserve.config.paths import state_dir
    from edgeserve.models.memory import size
    from edgeserve.runtime.lifecycle import interruptible
    from node.engine_build.progress import shown_steps

    options = ConvertOptions(
        folder=folder,
        kind=kind,
        state_dir=state_dir(),
        outfile=outfile,
        source=source,
        overwrite=overwrite,
        check=check,
        trust_code=trust_code,
    )
    with interruptible(), shown_steps() as show:
        made = converted(options, show)
    click.echo(f"{made.path}, {size(made.bytes)}")
    for sentence in made.said:
        click.echo(f"  {sentence}")
    if kind != QUANTIZED:
        path = shlex.quote(str(made.path))
        click.echo(f"  next: edgeserve quantize run {path} --types Q4_K_M")

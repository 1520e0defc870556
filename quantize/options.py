"""What the commands of `edgeserve quantize` share: options, reading, printing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeserve.columns import console

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


def read(file: Path) -> ModelFacts:
    """Read a model's facts; the reader is imported here, not for `--help`."""
    from quantize import facts

    return facts.read(file)


def show(*parts: object) -> None:
    """Print tables and sentences; nothing for what is empty."""
    out = console()
    for part in parts:
        if part:
            out.print(part)


def show_json(value: object) -> None:
    """Print JSON for programs."""
    click.echo(json.dumps(value, indent=2))

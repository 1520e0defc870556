"""What each type costs and gives: SmolLM2, dequantized to F16 as stated base."""

from pathlib import Path

import pytest
from rich.console import Console

from edgeserve.models.facts import read
from quantize.compare import CompareOptions, compare
from quantize.dequantize import dequantize, dequantized_path
from quantize.make import make
from quantize.progress import CompareProgress, MakeProgress, progress_bars
from quantize.report import picture, table
from tests.quantize.needs import library
from tests.quantize.options import some_options

pytestmark = [library, pytest.mark.bench, pytest.mark.timeout(3600)]

TYPES = "Q8_0,Q6_K,Q5_K_M,Q5_0,Q4_K_M,IQ4_NL,Q4_1,Q4_0,Q3_K_M,Q2_K"


def test_quality_size_and_speed_of_smollm2(smollm2: Path, tmp_path: Path) -> None:
    base = dequantized_path(tmp_path, smollm2, "F16")
    dequantize(read(smollm2), base, "F16", lambda _tensor: None)
    with progress_bars() as progress:
        made = make(some_options(base, TYPES), MakeProgress(progress))
        files = tuple(tmp_path / each.file for each in made.variants.values())
        options = CompareOptions(base=base, variants=files)
        found = compare(options, tmp_path, CompareProgress(progress))
    picture(found, tmp_path / "quality.png")

    Console(width=160).print(table(found))
    print(*(f"{m.recipe.type}: {m.remark}" for m in made.variants.values()), sep="\n")
    print(tmp_path / "quality.png")

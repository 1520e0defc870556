import re
import subprocess
from pathlib import Path

import pytest

from edgeserve.models.comparison import OWN_TEXT, Comparison, Measured
from edgeserve.models.facts import read
from edgeserve.runtime.files import fingerprint
from quantize.compare import CompareOptions, compare, ranked
from quantize.dequantize import dequantize, dequantized_path
from quantize.make import make
from quantize.report import picture, table
from quantize.worker.child import QuantizerFailed
from tests.fakes.gguf import Kind, Shape, a_model
from tests.native import native, tool
from tests.quantize.needs import library
from tests.quantize.options import RecordingObserver, some_options

pytestmark = library

CONTEXT, CHUNKS = 128, 2
LADDER = ("Q8_0", "Q4_K_M", "Q4_0")


class Silent:
    """An observer that keeps the last file."""

    def scoring(self, file: Path) -> None:
        self.file = file

    def timing(self, file: Path) -> None:
        self.file = file

    def step(self, done: int, of: int) -> None:
        assert done <= of

    def done(self, measured: Measured) -> None:
        assert measured.file == self.file.name


@pytest.fixture(scope="module")
def variants(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SmolLM2 as stated base, and variants of it; the base's path."""
    folder = tmp_path_factory.mktemp("smollm2")
    base = dequantized_path(folder, smollm2, "F16")
    dequantize(read(smollm2), base, "F16", lambda _tensor: None)
    make(some_options(base, ",".join(LADDER)), RecordingObserver())
    return base


@pytest.fixture(scope="module")
def compared(variants: Path) -> Comparison:
    """The base against all its variants, on a short stretch of our own text."""
    files = tuple(sorted(variants.parent.glob("*.Q*.gguf")))
    options = CompareOptions(
        base=variants, variants=files, context=CONTEXT, chunks=CHUNKS, repeats=0
    )
    return compare(options, variants.parent, Silent())


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_fewer_bits_are_smaller_and_further_from_the_base(compared: Comparison) -> None:
    by_type = {each.type: each for each in compared.variants}
    ladder = [by_type[kind] for kind in LADDER]

    sizes = [compared.base.bytes, *(each.bytes for each in ladder)]
    divergences = [each.quality.divergence or (0, 0) for each in ladder]
    assert sizes == sorted(sizes, reverse=True)
    assert [mean for mean, _ in divergences] == sorted(m for m, _ in divergences)
    assert divergences[0][0] < 0.01 < divergences[1][0] < 0.1 < divergences[2][0]
    assert all(mean > 3 * error for mean, error in divergences)
    assert [each.type for each in ranked(compared.variants)] == list(LADDER)
    agreement = [(each.quality.same_top or (0, 0))[0] for each in ladder]
    assert agreement == sorted(agreement, reverse=True)
    assert compared.dequantized_from is not None


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_perplexities_are_near_the_bases_and_the_same_predictions_count(
    compared: Comparison,
) -> None:
    base, _ = compared.base.quality.perplexity

    assert compared.base.quality.tokens == CHUNKS * (CONTEXT // 2 - 1)
    for each in compared.variants:
        assert each.quality.tokens == compared.base.quality.tokens
        assert each.quality.perplexity[0] == pytest.approx(base, rel=0.3)
        assert each.fingerprint != compared.base.fingerprint


@pytest.mark.engine
@pytest.mark.timeout(300)
@native
def test_figures_are_llama_perplexitys(compared: Comparison, variants: Path) -> None:
    perplexity = str(tool("llama-perplexity"))
    kept = str(variants.parent / "base.kld")
    options = ["--no-repack", "-c", str(CONTEXT), "-b", str(CONTEXT), "-t", "1"]

    def ask(model: Path, *more: str) -> str:
        command = [perplexity, "-m", str(model), *options, "--kl-divergence-base", kept]
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr

    said = ask(variants, "-f", str(OWN_TEXT), "--chunks", str(CHUNKS))
    theirs = re.search(r"PPL = ([\d.]+)", said)
    assert theirs
    assert compared.base.quality.perplexity[0] == pytest.approx(
        float(theirs[1]), rel=1e-3
    )
    for each in compared.variants:
        said = ask(variants.with_name(each.file), "--kl-divergence")
        mean = re.search(r"Mean +KLD: +([\d.]+)", said)
        assert mean
        assert each.quality.divergence
        assert each.quality.divergence[0] == pytest.approx(float(mean[1]), rel=0.01)


def test_a_model_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(base.read_bytes())
    options = CompareOptions(
        base=base, variants=(copy,), context=64, chunks=2, prompt=8, answer=2, repeats=2
    )

    found = compare(options, tmp_path, Silent())

    (other,) = found.variants
    assert other.quality.divergence
    assert abs(other.quality.divergence[0]) < 1e-4
    assert other.quality.log_ratio == (0, 0)
    assert other.quality.same_top == (1, 0)
    assert other.fingerprint == found.base.fingerprint == fingerprint(base)
    assert other.prefill
    assert other.decode
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "copy.gguf",
        "m.F16.gguf",
    ]


def test_another_models_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf")
    other = a_model(tmp_path / "o.gguf", Shape(vocabulary=259), kind=Kind.Q8_0)
    options = CompareOptions(
        base=base, variants=(other,), context=64, chunks=1, repeats=0
    )

    with pytest.raises(QuantizerFailed, match=r"o\.gguf: .*same model"):
        compare(options, tmp_path, Silent())

    assert sorted(tmp_path.iterdir()) == [base, other]


def test_a_text_too_short_is_refused_with_what_to_do(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf")
    text = tmp_path / "t.txt"
    text.write_text("too short")
    options = CompareOptions(base=base, variants=(base,), text=text, repeats=0)

    with pytest.raises(QuantizerFailed, match="longer --text or a smaller --context"):
        compare(options, tmp_path, Silent())


@pytest.mark.parametrize("repeats", [0, 1])
def test_a_comparison_becomes_a_table_and_a_picture(
    tmp_path: Path, repeats: int
) -> None:
    base = a_model(tmp_path / "m.F16.gguf")
    make(some_options(base, "Q8_0,Q4_0"), RecordingObserver())
    files = (tmp_path / "m.Q8_0.gguf", tmp_path / "m.Q4_0.gguf")
    options = CompareOptions(
        base=base, variants=files, context=64, chunks=1, prompt=8, answer=2,
        repeats=repeats,
    )  # fmt: skip

    found = compare(options, tmp_path, Silent())
    picture(found, tmp_path / "p.png")

    drawn = table(found)
    assert list(drawn.columns[0].cells) == ["F16 (base)", "Q8_0", "Q4_0"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeserve.models.facts import read
from edgeserve.quantization import TYPES
from quantize.make import NotAsPlanned, Refused, make, verify
from quantize.manifest import manifest_path, read_manifest
from quantize.overrides import dry_run, parse_override
from quantize.plan.variants import Variant, variant
from quantize.worker.child import QuantizerFailed
from tests.fakes.gguf import Kind, Shape, a_model, an_imatrix
from tests.quantize.needs import library
from tests.quantize.options import RecordingObserver, some_options

pytestmark = library

SHAPE = Shape(embedding=256, feed_forward=512, layers=2)


def test_several_types_are_made_verified_and_recorded(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    observer = RecordingObserver()

    manifest = make(some_options(base, "Q4_K_M,Q8_0"), observer)

    assert observer.words == [
        "planned Q4_K_M Q8_0",
        "begun Q4_K_M", "checking Q4_K_M", "made Q4_K_M",
        "begun Q8_0", "checking Q8_0", "made Q8_0",
    ]  # fmt: skip
    assert observer.tensors[0] == "1/20 output_norm.weight"
    assert read_manifest(manifest_path(tmp_path, base)) == manifest
    for kind, made in manifest.variants.items():
        facts = read(tmp_path / f"m.{kind}.gguf")
        assert facts.file_type == kind
        assert facts.file_bytes == made.bytes
        assert facts.name == "Synthetic"
    assert not list(tmp_path.glob("*.part"))


def test_the_file_says_what_its_tensors_hold(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)

    make(some_options(base, "Q8_0"), RecordingObserver())

    before = {each.name: each for each in gguf.GGUFReader(base).tensors}
    for tensor in gguf.GGUFReader(tmp_path / "m.Q8_0.gguf").tensors:
        wide = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        origin = before[tensor.name].data.astype(np.float32)
        assert np.abs(wide - origin.reshape(wide.shape)).max() < 0.01


def test_finished_types_are_kept_and_missing_ones_made(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    make(some_options(base, "Q8_0"), RecordingObserver())
    before = (tmp_path / "m.Q8_0.gguf").stat()
    observer = RecordingObserver()

    make(some_options(base, "Q8_0,Q4_0"), observer)

    assert observer.words[1:] == [
        "kept Q8_0",
        "begun Q4_0",
        "checking Q4_0",
        "made Q4_0",
    ]
    after = (tmp_path / "m.Q8_0.gguf").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_finished_type_that_was_harmed_is_made_again(
    tmp_path: Path, harm: str
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    make(some_options(base, "Q8_0"), RecordingObserver())
    target = tmp_path / "m.Q8_0.gguf"
    good = target.read_bytes()
    if harm == "gone":
        target.unlink()
    else:
        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        target.write_bytes(good[:-500] if harm == "cut" else flipped)
    observer = RecordingObserver()

    make(some_options(base, "Q8_0"), observer)

    assert observer.words[-1] == "made Q8_0"
    assert target.read_bytes() == good


def test_a_quantized_base_is_refused_unless_insisted(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.Q8_0.gguf", SHAPE, kind=Kind.Q8_0)

    with pytest.raises(Refused, match=r"already quantized \(Q8_0\).*dequantize"):
        make(some_options(base, "Q4_0"), RecordingObserver())
    assert list(tmp_path.iterdir()) == [base]

    make(some_options(base, "Q4_0", allow_requantize=True), RecordingObserver())
    assert read(tmp_path / "m.Q4_0.gguf").file_type == "Q4_0"


def test_the_base_is_never_overwritten(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    before = base.read_bytes()

    with pytest.raises(Refused, match="the base itself"):
        make(some_options(base, "F16", overwrite=True), RecordingObserver())

    assert base.read_bytes() == before


def test_a_file_of_other_origin_is_not_overwritten_unasked(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    foreign = tmp_path / "m.Q8_0.gguf"
    foreign.write_bytes(b"precious")

    with pytest.raises(Refused, match="--overwrite"):
        make(some_options(base, "Q8_0"), RecordingObserver())
    assert foreign.read_bytes() == b"precious"

    make(some_options(base, "Q8_0", overwrite=True), RecordingObserver())
    assert read(foreign).file_type == "Q8_0"


def test_tensors_named_by_a_pattern_get_the_type_asked(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    names = [tensor.name for tensor in read(base).tensors]
    override = parse_override(r"ffn_(gate|up)=Q8_0", names)

    make(some_options(base, "Q4_0", overrides=(override,)), RecordingObserver())

    kinds = {t.name: t.kind for t in read(tmp_path / "m.Q4_0.gguf").tensors}
    assert kinds["blk.1.ffn_up.weight"] == "Q8_0"
    assert kinds["blk.1.attn_q.weight"] == "Q4_0"


def test_few_bits_without_an_importance_matrix_are_refused(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)

    with pytest.raises(Refused, match=r"IQ2_XXS.*--imatrix"):
        make(some_options(base, "Q8_0,IQ2_XXS"), RecordingObserver())

    assert list(tmp_path.iterdir()) == [base]


def even_importance(base: Path) -> Path:
    """Write an importance matrix that prefers no column."""
    ones = {
        tensor.name: (np.ones((1, tensor.row), np.float32), np.ones((1, 1), np.float32))
        for tensor in read(base).tensors
        if len(tensor.shape) > 1
    }
    return an_imatrix(base.with_name("i.gguf"), ones)


def test_the_plan_knows_that_a_matrix_changes_the_recipe(tmp_path: Path) -> None:
    shape = Shape(layers=8, embedding=256, feed_forward=256, vocabulary=300)
    base = a_model(tmp_path / "m.F16.gguf", shape)
    matrix = even_importance(base)

    manifest = make(some_options(base, "IQ3_XXS", imatrix=matrix), RecordingObserver())

    without = dry_run(read(base), TYPES["IQ3_XXS"]).shares
    assert manifest.variants["IQ3_XXS"].tensors != without


def test_with_an_importance_matrix_few_bits_work_and_it_is_recorded(
    tmp_path: Path,
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    matrix = even_importance(base)

    make(some_options(base, "IQ2_XXS", imatrix=matrix), RecordingObserver())

    metadata = read(tmp_path / "m.IQ2_XXS.gguf").metadata
    assert metadata["quantize.imatrix.dataset"] == "text.txt"
    assert metadata["quantize.imatrix.chunks_count"] == 7
    assert metadata["quantize.imatrix.entries_count"] == 15


def test_other_settings_than_recorded_are_not_taken_for_the_same(
    tmp_path: Path,
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    make(some_options(base, "Q4_0"), RecordingObserver())
    names = [tensor.name for tensor in read(base).tensors]
    other = (parse_override("attn_v=Q8_0", names),)

    with pytest.raises(Refused, match="with these settings"):
        make(some_options(base, "Q4_0", overrides=other), RecordingObserver())


def test_a_disk_too_small_is_refused_with_the_arithmetic_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - shutil's own shape
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, 1000))

    with pytest.raises(Refused, match=r"1000 B free, but Q8_0 .* \+ Q4_0 .* needed"):
        make(some_options(base, "Q8_0,Q4_0"), RecordingObserver())

    assert list(tmp_path.iterdir()) == [base]


def test_a_base_that_breaks_during_the_work_leaves_nothing_half_named(
    tmp_path: Path,
) -> None:
    base = a_model(tmp_path / "m.F16.gguf", SHAPE)
    options = some_options(base, "Q8_0")
    base.write_bytes(base.read_bytes()[:-100_000])

    with pytest.raises(QuantizerFailed):
        make(options, RecordingObserver())

    assert list(tmp_path.iterdir()) == [base]


def as_planned(path: Path, **changes: str) -> Variant:
    """Plan exactly what the file is, but for some tensors."""
    facts = read(path)
    kinds = {tensor.name: tensor.kind for tensor in facts.tensors}
    return variant(facts, TYPES[facts.file_type], {**kinds, **changes}, {})


def test_a_file_as_planned_passes(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.Q8_0)

    verify(path, as_planned(path), with_imatrix=False)


def test_another_tensor_type_than_planned_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.Q8_0)
    planned = as_planned(path, **{"token_embd.weight": "Q6_K"})

    with pytest.raises(
        NotAsPlanned, match=r"token_embd\.weight is Q8_0, planned was Q6_K"
    ):
        verify(path, planned, with_imatrix=False)


def test_a_missing_tensor_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")
    planned = as_planned(path)
    fewer = {name: kind for name, kind in planned.kinds.items() if "norm" not in name}

    with pytest.raises(NotAsPlanned, match="has 20 tensors, not 15"):
        verify(path, replace(planned, kinds=fewer), with_imatrix=False)


def test_a_file_type_other_than_planned_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.F16)
    other = a_model(tmp_path / "o.gguf", kind=Kind.Q8_0)

    with pytest.raises(NotAsPlanned, match="file_type is 1, planned was 7"):
        verify(path, as_planned(other), with_imatrix=False)


def test_bytes_too_many_are_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")
    planned = as_planned(path)
    with path.open("ab") as file:
        file.write(bytes(500))

    with pytest.raises(NotAsPlanned, match="bytes more"):
        verify(path, planned, with_imatrix=False)


def test_a_variant_made_with_an_importance_matrix_says_so(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    with pytest.raises(NotAsPlanned, match="importance matrix"):
        verify(path, as_planned(path), with_imatrix=True)

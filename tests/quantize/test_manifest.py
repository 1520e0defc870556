from pathlib import Path

import pytest

from edgeserve.runtime.files import fingerprint, replace_json, sha256
from quantize.manifest import (
    BadManifest,
    MadeVariant,
    Manifest,
    Recipe,
    manifest_path,
    read_manifest,
)


def made(kind: str, digest: str = "0") -> MadeVariant:
    return MadeVariant(
        file=f"m.{kind}.gguf",
        recipe=Recipe(base="f", type=kind),
        bytes=1,
        bits=8.5,
        sha256=digest,
        tensors={kind: 1},
        remark="",
        seconds=1.0,
        made="2026-11-22T00:00:00+00:00",
        library="llama-cpp-python 0",
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = manifest_path(tmp_path, Path("m.F16.gguf"))
    manifest = Manifest(base="m.F16.gguf").with_variant(made("Q8_0"))

    replace_json(path, manifest)

    assert path.name == "m.variants.json"
    assert read_manifest(path) == manifest
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_variant_of_a_type_replaces_the_older() -> None:
    manifest = Manifest(base="m").with_variant(made("Q8_0")).with_variant(made("Q4_0"))

    newer = manifest.with_variant(made("Q8_0", "1"))

    assert newer.variants["Q8_0"].sha256 == "1"
    assert sorted(newer.variants) == ["Q4_0", "Q8_0"]


def test_no_manifest_is_none_and_a_broken_one_is_a_sentence(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "m.variants.json") is None
    broken = tmp_path / "b.variants.json"
    broken.write_text("{")

    with pytest.raises(BadManifest, match="move it away"):
        read_manifest(broken)


@pytest.mark.parametrize("at", [0, 4_000_000, 7_999_999])
def test_a_fingerprint_sees_both_ends_and_the_middle(tmp_path: Path, at: int) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    content = bytearray(8_000_000)
    one.write_bytes(content)
    content[at : at + 200_000] = b"x" * len(content[at : at + 200_000])
    other.write_bytes(content)

    assert fingerprint(one) != fingerprint(other)
    assert sha256(one) != sha256(other)


def test_a_file_of_any_size_has_a_fingerprint(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")

    assert len(fingerprint(small)) == 32

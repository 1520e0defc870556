"""llama.cpp's own tools, as `edgeserve engine build` makes them, do as we expect."""

import shutil
from pathlib import Path

import pytest

from edgeserve.models.comparison import OWN_TEXT
from edgeserve.models.facts import read
from quantize.compare import bench
from quantize.imatrix import importance_matrix, native_tool
from quantize.make import make
from quantize.worker.imatrix_file import read_importance
from quantize.worker.messages import Speed
from tests.fakes.gguf import a_model
from tests.native import native, state_dir, tool
from tests.quantize.needs import library
from tests.quantize.options import RecordingObserver, some_options

pytestmark = [native, pytest.mark.engine]


@pytest.fixture(autouse=True)
def in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let quantize look where the build is."""
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(state_dir()))


def test_they_are_found_where_the_build_put_them() -> None:
    assert native_tool("llama-imatrix") == tool("llama-imatrix")


def test_llama_bench_measures(smollm2: Path) -> None:
    job = Speed(model=str(smollm2), prompt=16, answer=4, repeats=2, threads=1)

    found = bench(tool("llama-bench"), job)

    assert found is not None
    assert len(found.prefill) == len(found.decode) == 2
    assert min(*found.prefill, *found.decode) > 0
    assert found.threads == 1


@library
def test_llama_imatrix_makes_a_matrix_that_small_types_need(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf")
    text = shutil.copy(OWN_TEXT, tmp_path / "talk.txt")

    matrix = importance_matrix(read(base), Path(text), tmp_path, 1)
    make(some_options(base, "IQ2_XXS", imatrix=matrix), RecordingObserver())

    assert read_importance(str(matrix)).chunks > 0
    metadata = read(tmp_path / "m.IQ2_XXS.gguf").metadata
    assert metadata["quantize.imatrix.dataset"].endswith("talk.txt")

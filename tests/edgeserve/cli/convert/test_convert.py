"""`edgeserve quantize convert`, with a converter that only copies a model."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import psutil
import pytest

from edgeserve.models.facts import read
from tests.fakes.checkpoint import a_checkpoint
from tests.fakes.converter import a_converter
from tests.fakes.engines import FakeEngine
from tests.fakes.gguf import a_model
from tests.fakes.terminal import Seen, Terminal
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[4]
CONVERT = ("quantize", "convert")
ORIGINAL = "edgeserve.cli.convert.steps.original_tokens"
"""Imports transformers in a child, if it is there."""


class Place(NamedTuple):
    """Where a test converts: the checkpoint, the converter, its report, its state."""

    folder: Path
    source: Path
    seen: Path
    state: Path

    def left(self) -> list[str]:
        """The GGUF files, whole or in part."""
        found = (path.name for path in self.folder.iterdir() if "gguf" in path.name)
        return sorted(found)


@pytest.fixture(scope="session")
def mangling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vocabulary has no blank: what it tokenizes comes back changed."""
    return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a blank among its tokens."""
    add = gguf.GGUFWriter.add_token_list

    def with_blank(writer: gguf.GGUFWriter, tokens: list[bytes]) -> None:
        add(writer, [*tokens[:-1], "\u2581".encode()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_token_list", with_blank)
        return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Place:
    """A checkpoint and a converter, as if the extra was installed."""
    monkeypatch.setenv("STUB_MODEL", str(model))
    monkeypatch.setenv("STUB_SEEN", str(tmp_path / "seen.json"))
    monkeypatch.setattr("edgeserve.cli.convert.conversion.NEEDED", {"json": "json"})
    monkeypatch.setattr(ORIGINAL, lambda *_given, **_options: None)
    return Place(
        a_checkpoint(tmp_path / "tiny"),
        a_converter(tmp_path / "llama.cpp"),
        tmp_path / "seen.json",
        tmp_path / "state",
    )


@pytest.fixture
def call(place: Place, edgeserve: Terminal) -> Callable[..., Seen]:
    """Convert the checkpoint with the converter and these options."""

    def called(*options: str) -> Seen:
        return edgeserve(
            *CONVERT, str(place.folder), "--source", str(place.source), *options
        )

    return called


@pytest.mark.engine
def test_a_model_gets_its_name_after_the_bundled_engine_has_answered(
    place: Place, call: Callable[..., Seen], model: Path
) -> None:
    seen = call()

    target = place.folder / "tiny.F16.gguf"
    assert seen.status == 0, seen.err
    assert f"{target}, " in seen.out
    assert "  it answers '" in seen.out
    assert f"next: edgeserve quantize run {target} --types" in seen.out
    assert target.read_bytes() == model.read_bytes()
    assert place.left() == [target.name]
    lines = seen.err.splitlines()
    assert {"reading 100 %", "writing 100 %", "checking 100 %"} <= set(lines)


def test_the_converter_has_its_own_gguf_and_fetches_nothing(
    place: Place, call: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_LOCAL_GGUF", "1")

    assert call("--no-check", "--type", "q8_0").status == 0

    seen: dict[str, Any] = json.loads(place.seen.read_text())
    assert seen["gguf"] == str(place.source / "gguf-py" / "gguf" / "__init__.py")
    assert seen["offline"] == "1"
    assert seen["argv"][0] == str(place.folder)
    assert seen["argv"][-2:] == ["--outtype", "q8_0"]
    assert place.left() == ["tiny.Q8_0.gguf"]
    assert not list(place.source.rglob("__pycache__"))


def test_an_outfile_keeps_its_braces_and_a_folder_gets_the_usual_name(
    place: Place, call: Callable[..., Seen], tmp_path: Path
) -> None:
    assert call("--no-check", "--outfile", str(tmp_path / "a{b}.gguf")).status == 0
    assert call("--no-check", "--outfile", str(tmp_path), "--type", "bf16").status == 0

    assert (tmp_path / "a{b}.gguf").is_file()
    assert (tmp_path / "tiny.BF16.gguf").is_file()
    assert place.left() == []


def test_an_existing_file_is_replaced_only_if_asked(
    place: Place, call: Callable[..., Seen]
) -> None:
    (place.folder / "tiny.F16.gguf").write_text("mine")

    refused = call("--no-check")
    assert refused.status == 1
    assert "exists; --overwrite replaces it" in refused.err
    assert (place.folder / "tiny.F16.gguf").read_text() == "mine"

    assert call("--no-check", "--overwrite").status == 0
    assert read(place.folder / "tiny.F16.gguf").architecture == "llama"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("architecture", "this llama.cpp cannot convert FooForCausalLM; a newer one"),
        ("module", "this needs missing_module: `pip install '.[convert]'`"),
        ("tokenizer", "does not know its tokenizer; a newer one (--source) may"),
        ("killed", "the converter was killed by SIGKILL (out of memory?)"),
        ("other", "failed: ValueError: Can not map tensor 'model.foo.weight' (log: "),
        ("nothing", "ended without an error, but made no file"),
        ("damaged", "tiny.F16.gguf.part"),
    ],
)
def test_a_failure_is_a_sentence_and_leaves_nothing_but_a_log(
    place: Place,
    call: Callable[..., Seen],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    said: str,
) -> None:
    monkeypatch.setenv("STUB_FAULT", fault)

    seen = call("--no-check")

    assert seen.status in (1, 2)
    assert said in seen.err
    assert "Traceback" not in seen.err
    assert place.left() == []
    log = place.state / "converter" / "convert.log"
    assert log.exists() == (fault not in {"nothing", "damaged"})


@pytest.mark.engine
@pytest.mark.parametrize(
    ("original", "said"),
    [
        (None, "could not be compared with the original tokenizer's"),
        ([1, 2], r"beware: it makes other tokens .* instead of 2 of a test text"),
    ],
)
def test_other_tokens_than_the_originals_are_told_but_no_error(
    call: Callable[..., Seen],
    monkeypatch: pytest.MonkeyPatch,
    original: list[int] | None,
    said: str,
) -> None:
    monkeypatch.setattr(ORIGINAL, lambda *_given, **_options: original)

    seen = call()

    assert seen.status == 0, seen.err
    assert re.search(said, seen.out)


@pytest.mark.engine
def test_a_tokenizer_that_came_out_wrong_costs_the_file_its_name(
    place: Place,
    call: Callable[..., Seen],
    monkeypatch: pytest.MonkeyPatch,
    mangling: Path,
) -> None:
    monkeypatch.setenv("STUB_MODEL", str(mangling))

    seen = call()

    assert seen.status == 1
    assert "the tokenizer came out wrong" in seen.err
    assert "--no-check leaves this check out" in seen.err
    assert place.left() == []


def test_an_engine_that_ends_costs_the_file_its_name(
    place: Place, call: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = partial(FakeEngine, ("--no-such-flag",))
    monkeypatch.setattr("edgeserve.cli.convert.steps.bundled", dying)

    seen = call()

    assert seen.status == 1
    assert "the engine cannot run the model: ended with status 2" in seen.err
    assert place.left() == []


def test_without_the_extra_it_says_what_to_install(
    call: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"no_torch": "torch", "no.protobuf": "protobuf", "json": "json"}
    monkeypatch.setattr("edgeserve.cli.convert.conversion.NEEDED", needed)

    seen = call()

    assert seen.status == 1
    assert "this needs torch, protobuf: `pip install '.[convert]'`" in seen.err


def test_a_full_disk_is_seen_before_anything_runs(
    place: Place, call: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place.folder)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)

    seen = call("--no-check")

    assert "has 1 MiB free, but about 32.3 MiB are needed" in seen.err
    assert not place.seen.exists()


def test_a_models_own_code_runs_only_if_it_is_trusted(
    place: Place, call: Callable[..., Seen]
) -> None:
    config = json.loads((place.folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_x.X"}
    (place.folder / "config.json").write_text(json.dumps(config))

    refused = call("--no-check")
    assert refused.status == 1
    assert "config.json in" in refused.err
    assert "--trust-code" in refused.err
    assert not place.seen.exists()

    assert call("--no-check", "--trust-code").status == 0


def test_the_usual_converter_is_fetched_once_and_kept(
    place: Place, edgeserve: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = tmp_path / "llama_cpp_python.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(place.source, "llama_cpp_python/vendor/llama.cpp")
    fetched = list[Path]()

    def fetch(work: Path, _show: object) -> Path:
        fetched.append(work)
        return sdist

    monkeypatch.setattr("node.engine_build.source._download", fetch)
    kept = place.state / "converter" / "llama-cpp-python-0.3.36"
    call = (*CONVERT, str(place.folder), "--no-check", "--overwrite")

    assert edgeserve(*call).status == 0
    assert edgeserve(*call).status == 0
    assert len(fetched) == 1
    pieces = {"convert_hf_to_gguf.py", "conversion", "gguf-py"}
    assert {path.name for path in kept.iterdir()} == pieces
    assert not (kept.parent / ".unpacking").exists()

    shutil.rmtree(kept / "conversion")
    assert edgeserve(*call).status == 0
    assert len(fetched) == 2


def test_a_source_without_a_converter_is_refused(
    place: Place, call: Callable[..., Seen]
) -> None:
    shutil.rmtree(place.source / "conversion")

    seen = call("--no-check")

    assert seen.status == 1
    assert "has no conversion; take a whole llama.cpp" in seen.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_converter_ends_with_the_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("STUB_FAULT", "hang")
    entry = (
        "import sys, edgeserve.cli.convert.conversion as c; c.NEEDED = {};"
        "from edgeserve.cli.main import main; main(sys.argv[1:])"
    )
    options = ("--no-check", "--source", str(place.source))
    with subprocess.Popen(
        [sys.executable, "-c", entry, *CONVERT, str(place.folder), *options],
        cwd=ROOT,
        env={**os.environ, "EDGESERVE_STATE_DIR": str(place.state)},
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        end = time.monotonic() + PATIENCE
        for line in running.stderr:
            if line.startswith(b"writing") or time.monotonic() > end:
                break
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(number)
        running.wait(PATIENCE)

    assert children
    gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert (len(gone), alive) == (len(children), [])
    left = [] if number != signal.SIGKILL else ["tiny.F16.gguf.part"]
    assert place.left() == left

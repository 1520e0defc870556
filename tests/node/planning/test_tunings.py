from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu, Memory
from edgeserve.wire import Launch
from node.engines.devices import Device
from node.planning.fit import Fitted, Load, Room, fit
from node.planning.tunings import (
    Figures,
    Key,
    Result,
    Tuned,
    difference,
    fingerprint,
    load,
    save,
)
from tests.node.building import some_hardware
from tests.node.shapes import facts

GIB = 2**30
FIGURES = Figures(prefill=100.0, decode=10.0, aggregate=20.0)
KEY = Key(
    machine="m1", engine="native b1", variant="a:Q4_0", file_bytes=7, role="generate"
)


def a_result(**changes: Any) -> Result:
    result = Result(
        key=KEY,
        tuned=Tuned(threads=3, slots=4),
        untuned=FIGURES,
        best=FIGURES,
        gain=0.123,
        made="2026-01-31T10:00:00+00:00",
    )
    return msgspec.structs.replace(result, **changes)


def test_a_result_is_found_again(tmp_path: Path) -> None:
    save(tmp_path, a_result())
    found = load(tmp_path, machine="m1", engine="native b1")

    assert found.find("a:Q4_0", 7, "generate") == a_result()


@pytest.mark.parametrize(
    ("machine", "engine", "variant", "size", "role"),
    [
        ("m2", "native b1", "a:Q4_0", 7, "generate"),
        ("m1", "native b2", "a:Q4_0", 7, "generate"),
        ("m1", "bundled b1", "a:Q4_0", 7, "generate"),
        ("m1", "native b1", "a:Q8_0", 7, "generate"),
        ("m1", "native b1", "a:Q4_0", 8, "generate"),
        ("m1", "native b1", "a:Q4_0", 7, "embeddings"),
    ],
)
def test_it_holds_for_no_other_machine_engine_file_or_role(
    tmp_path: Path, machine: str, engine: str, variant: str, size: int, role: Any
) -> None:
    save(tmp_path, a_result())
    found = load(tmp_path, machine=machine, engine=engine)

    assert found.find(variant, size, role) is None


def test_tuning_again_replaces_what_was_found(tmp_path: Path) -> None:
    save(tmp_path, a_result())
    save(tmp_path, a_result(gain=0.5))

    assert len(list((tmp_path / "tuned").iterdir())) == 1
    found = load(tmp_path, machine="m1", engine="native b1")
    assert found.results[KEY].gain == 0.5


def test_a_broken_file_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path, a_result())
    file.with_name("other.json").write_text('{"half": ')
    found = load(tmp_path, machine="m1", engine="native b1")

    assert list(found.results) == [KEY]
    assert "other.json" in caplog.text


def test_what_cannot_be_written_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    save(tmp_path, a_result())
    monkeypatch.setattr("node.planning.tunings.msgspec.json.format", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, a_result(gain=0.9))

    assert len(list((tmp_path / "tuned").iterdir())) == 1
    found = load(tmp_path, machine="m1", engine="native b1")
    assert found.results[KEY].gain == 0.123


def test_a_machine_is_identified_by_what_speeds_depend_on() -> None:
    pi = some_hardware()
    gpu = Device("CUDA0", "NVIDIA L4", 24 * GIB, 24 * GIB)
    fuller = some_hardware(memory=Memory(total=GIB, available=0))
    other = some_hardware(
        cpu=Cpu(model="Pi", physical_cores=2, logical_cores=4, load=0)
    )

    assert fingerprint(pi) == fingerprint(fuller)
    others = [
        fingerprint(other),
        fingerprint(pi, [gpu]),
        fingerprint(pi, [gpu, gpu]),
        fingerprint(pi, [gpu], apart=True),
    ]
    assert len({fingerprint(pi), *others}) == 5


def test_the_summary_says_when_and_how_much() -> None:
    assert a_result().summary == "tuned on 2026-01-31: +12 %"
    assert "nothing better" in a_result(tuned=Tuned()).summary


def test_a_difference_applied_is_the_other_launch() -> None:
    one = Launch(slots=1, context=4096, batch=256, threads=4)
    other = msgspec.structs.replace(one, threads=2, speculative="ngram-mod")

    assert difference(one, other) == Tuned(threads=2, speculative="ngram-mod")
    assert msgspec.structs.replace(one, **difference(one, other).changes) == other
    assert difference(one, one).changes == {}


ROOM = Room(cores=4, memory=8 * GIB)
TUNED = Tuned(slots=4, threads=3, batch=128, kv_type="q8_0")


def fitted(room: Room, tuned: Tuned, **settings: Any) -> Fitted:
    found = fit(Load(facts=facts(4.0)), NodeSettings(**settings), room, tuned)
    assert isinstance(found, Fitted)
    return found


def test_the_next_start_uses_what_was_tuned() -> None:
    found = fitted(ROOM, TUNED)

    assert found.tuned
    assert difference(fitted(ROOM, Tuned()).launch, found.launch) == TUNED


def test_what_the_settings_name_is_not_tuned() -> None:
    launch = fitted(ROOM, TUNED, threads=1, batch=64).launch

    assert (launch.threads, launch.batch, launch.slots) == (1, 64, 4)


def test_tuned_slots_that_no_longer_fit_are_left_and_the_rest_is_used() -> None:
    tight = Room(cores=4, memory=6 * GIB)
    found = fitted(tight, Tuned(slots=16, threads=3))

    assert found.tuned
    assert (found.launch.slots, found.launch.threads) == (1, 3)
    assert found.launch.context == fitted(tight, Tuned()).launch.context


def test_tuned_slots_take_no_layers_from_the_gpu() -> None:
    room = Room(cores=8, memory=64 * GIB, gpu_memory=10 * GIB)
    found = fitted(room, Tuned(slots=16))

    assert found.launch.gpu_layers == -1
    assert found.launch.slots == 4

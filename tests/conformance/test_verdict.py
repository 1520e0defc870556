"""The verdict on llama.cpp's server tests, and when it is a failure."""

from __future__ import annotations

import tomllib

from tests.conformance.run import DIFFERS
from tests.conformance.verdict import verdict

PASSED, FAILED = "passed", "failed"
REASONS = {"a.py::test_x[*": "it is otherwise here"}


def test_what_fails_directly_is_no_concern_of_ours() -> None:
    found = verdict({"a": FAILED, "b": PASSED}, {"a": FAILED, "b": PASSED}, {})

    assert found.fine
    assert found.direct == found.through == {"b"}


def test_what_only_passes_directly_needs_a_reason() -> None:
    direct = {"a.py::test_x[1]": PASSED, "a.py::test_y": PASSED}
    ours = dict.fromkeys(direct, FAILED)

    found = verdict(direct, ours, REASONS)

    assert found.differs == {"a.py::test_x[1]": "it is otherwise here"}
    assert found.unexplained == {"a.py::test_y"}
    assert not found.fine
    assert "a.py::test_y" in found.told()


def test_a_test_that_was_not_reached_has_not_passed() -> None:
    assert verdict({"a": PASSED}, {}, {}).unexplained == {"a"}


def test_a_reason_that_explains_nothing_has_to_go() -> None:
    direct = {"a.py::test_x[1]": PASSED}

    found = verdict(direct, direct, REASONS)

    assert found.stale == set(REASONS)
    assert not found.fine
    assert verdict({}, {}, REASONS).fine


def test_each_reason_is_a_sentence() -> None:
    known = tomllib.loads(DIFFERS.read_text())

    differs = ("differs", "differs_at_balancer", "differs_at_node")
    assert set(known) == {*differs, "not_runnable"}
    for section in differs:
        assert all(why.endswith(".") for why in known[section].values())
    assert all(known["not_runnable"].values())

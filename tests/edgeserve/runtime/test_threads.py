import pytest

from edgeserve.runtime.threads import BLOCKTIME, SPIN, openmp_environment


def test_threads_look_for_work_a_moment_before_they_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv(SPIN, raising=False)
    monkeypatch.delenv(BLOCKTIME, raising=False)

    assert openmp_environment()["OMP_WAIT_POLICY"] == "passive"
    assert openmp_environment()[SPIN] == "1000"
    assert openmp_environment()[BLOCKTIME] == "0"


def test_the_environment_says_otherwise_where_it_says_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SPIN, "7")

    assert openmp_environment()[SPIN] == "7"

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from balancer.persistence.learned import file_in, learned, restore
from balancer.routing.predictive import PredictivePolicy
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node


def samples(predict: PredictivePolicy) -> int:
    (engine_model,) = predict.fleet_model.all()
    return engine_model.learner.samples


async def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    async with fake_node("pi", Behaviour(decode=500)) as node:
        async with endpoint(node, state_dir=tmp_path) as first:
            await first.post(CHAT, chat("word " * 200, max_tokens=8))
            before = learned(first.balancer.state.predictive)
        async with endpoint(node, state_dir=tmp_path) as second:
            predict = second.balancer.state.predictive
            assert samples(predict) == 1
            assert learned(predict) == before


async def test_another_process_can_go_on_from_it(tmp_path: Path) -> None:
    async with fake_node("pi", Behaviour(decode=500)) as node:
        async with endpoint(node) as first:
            await first.post(CHAT, chat("word " * 200, max_tokens=8))
            handed = learned(first.balancer.state.predictive)
        async with endpoint(state_dir=tmp_path, wait=False) as second:
            restore(second.balancer.state.predictive, handed)
            assert learned(second.balancer.state.predictive) == handed


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"speeds": 3}'])
async def test_a_file_that_makes_no_sense_is_replaced(
    broken: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file_in(tmp_path).write_bytes(broken)

    with caplog.at_level(logging.WARNING):
        async with endpoint(state_dir=tmp_path, wait=False):
            pass

    assert "will be replaced" in caplog.text
    assert b"speeds" in file_in(tmp_path).read_bytes()


async def test_a_state_folder_that_takes_nothing_is_reported_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "state"

    with caplog.at_level(logging.WARNING):
        async with endpoint(state_dir=folder, wait=False):
            pass

    told = [record.getMessage() for record in caplog.records]
    assert (
        f"cannot write what was learned to {file_in(folder)}: Not a directory" in told
    )
    assert any(f"cannot listen on {folder}" in each for each in told)
    assert "[Errno" not in caplog.text

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.models.synthetic import a_model
from edgeserve.orders.engines import LOAD
from edgeserve.wire import NodeReport
from node.engines.process import free_port
from tests.node.lifecycle.ordering import engine, ordered, states


@pytest.fixture
def settings(tmp_path: Path, smollm2: Path) -> NodeSettings:
    """A node with two models, and memory for the larger one only."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(smollm2, folder / "talker-Q4_1.gguf")
    a_model(folder / "noise-F16.gguf")
    return NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "state",
        models_dir=folder,
        engine="bundled",
        memory_mib=230,
        slots=1,
        context=512,
        threads=1,
        advertise=False,
    )


LONG = {
    "model": "noise",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 400,
    "ignore_eos": True,
    "stream": True,
}


@pytest.mark.engine
async def test_models_that_share_a_memory_load_drain_and_answer_in_turn(
    settings: NodeSettings,
) -> None:
    shares = list[float]()

    def loaded(report: NodeReport) -> bool:
        share = engine(report, "talker").progress
        shares.extend(() if share is None else (share,))
        return bool(states(noise="absent", talker="ready")(report))

    async with ordered(settings) as here:
        cold = await here.until(states(noise="ready", talker="absent"))
        client = here.watched.client
        async with client.post("/v1/chat/completions", json=LONG) as long:
            await here.post(LOAD, engine="talker:Q4_1", drain=True)
            words = await long.read()
            swapped = await here.until(loaded)
        answer = await here.chat("talker")
        await here.load("noise")
        back = await here.until(states(noise="ready", talker="absent"))

    assert engine(cold, "talker").evicts == ("noise:F16",)
    assert words.endswith(b"data: [DONE]\n\n")
    assert answer.endswith(b"data: [DONE]\n\n")
    assert shares == sorted(shares)
    assert all(0 <= each < 1 for each in shares)
    assert engine(swapped, "talker").load_seconds > 0
    assert "its last load took" in (engine(back, "talker").reason or "")

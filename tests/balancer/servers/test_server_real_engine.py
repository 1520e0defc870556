"""A llama-server that was started by hand is taken in as a server, and answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.config.servers import ServerSetting
from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint
from tests.balancer.engine import KEY, real_engine
from tests.balancer.servers.test_server_registry import add, remove

pytestmark = pytest.mark.engine


async def test_a_llama_server_started_by_hand_answers_chats_through_a_balancer(
    smollm2: Path, tmp_path: Path
) -> None:
    key = a_secret(tmp_path, "key", KEY)
    with real_engine(smollm2) as engine:
        url = f"http://127.0.0.1:{engine.port}/v1"
        server = ServerSetting(url=url, key_file=str(key))
        async with endpoint(server_tables=(server,)) as here:
            (found,) = here.balancer.state.current.candidates
            whole = await here.post(CHAT, chat("Say hi.", "smol", max_tokens=60))
            streamed = await here.post(
                CHAT, chat("Say hi.", "smol", stream=True, max_tokens=60)
            )
            (model,) = here.balancer.state.predictive.fleet_model.all()

    assert (found.engine.build, found.engine.slots) == ("llama-server", 2)
    assert found.engine.context == 1024
    assert whole.status == streamed.status == 200
    assert whole.text
    assert streamed.body.rstrip().endswith(b"data: [DONE]")
    assert b"prompt_progress" not in streamed.body
    assert model.learner.calibrated


async def test_a_llama_server_is_added_and_removed_while_the_balancer_runs(
    smollm2: Path,
) -> None:
    with real_engine(smollm2) as engine:
        url = f"http://127.0.0.1:{engine.port}"
        async with endpoint() as here:
            locked = await add(here, url)
            added = await add(here, url, key=KEY)
            answered = await here.post(CHAT, chat("Say hi.", "smol", max_tokens=8))
            removed = await remove(here, url)
            refused = await here.post(CHAT, chat("Say hi.", "smol", max_tokens=8))

    shown = added.json
    assert locked.status == 422
    assert "name the file with its key, with --key-file" in locked.error
    assert (shown["kind"], shown["width"], shown["assumed"]) == ("llama-server", 2, [])
    assert shown["models"][0]["context"] == 1024
    assert (answered.status, removed.status, refused.status) == (200, 200, 503)
    assert answered.text

"""At the lowest level too, no log line holds a prompt, an answer or a key."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node

PROMPT = "marker-of-a-prompt"
KEY = "marker-of-a-key-0123456789"
WRONG = "marker-of-a-wrong-key-012345"


async def test_a_debug_log_has_no_prompt_and_no_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = a_secret(tmp_path, "keys", KEY)
    asked = chat(messages=[{"role": "user", "content": PROMPT}])
    image = {"type": "image_url", "image_url": {"url": f"http://a/{PROMPT}"}}
    bodies = (
        asked,
        {**asked, "stream": True},
        {**asked, "model": "another"},
        {**asked, "n": PROMPT},
        {**asked, "grammar": f'root ::= "{PROMPT}" {{1,99999999}}'},
        {**asked, "messages": [{"role": "user", "content": [image]}]},
    )
    with caplog.at_level(logging.DEBUG):
        async with (
            fake_node("pi", Behaviour()) as node,
            endpoint(node, api_key_file=keys) as balancer,
        ):
            statuses = set[int]()
            for key in (KEY, WRONG):
                for body in bodies:
                    headers = {"authorization": f"Bearer {key}"}
                    async with balancer.session.post(
                        CHAT, json=body, headers=headers
                    ) as answer:
                        statuses.add(answer.status)
                        await answer.read()
            async with balancer.session.post(
                CHAT,
                data=f'{{"model": {PROMPT}',
                headers={"authorization": f"Bearer {KEY}"},
            ) as answer:
                statuses.add(answer.status)

    assert {200, 400, 401, 404} <= statuses
    for secret in (PROMPT, KEY, WRONG):
        assert secret not in caplog.text

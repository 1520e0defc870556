"""The errors of every kind of server become ours, and lead to the right next step.

Its key goes to it alone.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from balancer.servers import polling
from edgeserve.config.servers import ServerSetting
from tests.balancer.endpoint import CHAT, Answered, a_secret, chat, endpoint, eventually
from tests.fakes.dialects.base import MODELS, SAID, Dialect
from tests.fakes.dialects.running import DIALECTS, fake_dialect
from tests.fakes.dialects.server import Answer, answer
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)

KEY = "sk-this-is-for-one-server-only"


async def asked_with(dialect: Dialect, failing: Answer) -> Answered:
    """Ask a fleet of one server that answers with an error."""
    async with (
        fake_dialect(dialect, failing=failing) as server,
        endpoint(servers=(server.url,), queue_seconds=0.05) as here,
    ):
        return await here.post(CHAT, chat(model=dialect.model, stream=True))


@every
async def test_a_prompt_that_is_too_long_is_refused_as_llama_cpp_does(
    dialect: Dialect,
) -> None:
    refused = await asked_with(dialect, dialect.too_long())

    assert refused.status == 400
    assert refused.json["error"]["type"] == "exceed_context_size_error"


@every
async def test_a_failure_is_passed_on_in_our_format(dialect: Dialect) -> None:
    failed = await asked_with(dialect, dialect.broken())

    assert failed.status == 500
    assert failed.json["error"]["code"] == 500
    assert failed.error


@every
@pytest.mark.parametrize("why", ["overloaded", "unknown", "refused", "too long"])
async def test_a_node_answers_what_it_does_not(dialect: Dialect, why: str) -> None:
    gone = dialect.error(404, "The model `small` does not exist.")
    failing = {
        "overloaded": dialect.overloaded(),
        "unknown": gone,
        "refused": answer(dialect.failing_key, dialect.refused),
        "too long": dialect.too_long(),
    }[why]
    async with (
        fake_dialect(dialect, failing=failing) as server,
        fake_node("pi", engine=an_engine(context=9000)) as node,
        endpoint(node, servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=True))

    assert server.asked
    assert answered.status == 200
    assert answered.headers["x-edgeserve-node"] == "pi"


@every
async def test_a_client_is_told_when_to_come_again_or_waits_until_a_limit(
    dialect: Dialect,
) -> None:
    """Only 429 keeps a request in the queue, and it has no seconds of the server."""
    full = dialect.overloaded()
    later = Answer(full.status, full.body, full.type, {"retry-after": "7"})

    refused = await asked_with(dialect, later)

    if full.status == 429:
        assert refused.status == 504
        assert refused.error == "no slot came free in 0.05 s"
    else:
        assert refused.status == full.status == 503
        assert refused.headers["retry-after"] == "7"
        assert isinstance(full.body, bytes)
        assert refused.error in full.body.decode()


async def test_a_server_that_was_full_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)
    dialect = next(each for each in DIALECTS if each.overload == 429)
    async with (
        fake_dialect(dialect, failing=dialect.overloaded()) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        asking = asyncio.ensure_future(here.post(CHAT, chat(model=dialect.model)))
        await eventually(lambda: len(server.asked) > 1)
        server.failing = None

        assert (await asking).text == SAID


@every
async def test_its_key_goes_to_it_alone_and_is_written_nowhere(
    dialect: Dialect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not any(map(dialect.guards, (MODELS, CHAT))):
        pytest.skip("has no keys")
    caplog.set_level(logging.DEBUG)
    file = a_secret(tmp_path, "key", KEY)
    async with (
        fake_dialect(dialect, key=KEY) as server,
        fake_dialect(Dialect()) as other,
        endpoint(
            server_tables=(
                ServerSetting(url=server.url, key_file=str(file), name="its"),
                ServerSetting(url=other.url, last_resort=True),
            )
        ) as here,
    ):
        mine = {"authorization": "Bearer sk-mine"}
        answered = await here.post(CHAT, chat(model=dialect.model), mine)
        server.failing = answer(dialect.failing_key, dialect.refused)
        await here.post(CHAT, chat(), mine)
        shown = [
            (await here.get(path)).body.decode()
            for path in ("/edgeserve/v1/nodes", "/edgeserve/v1/requests", "/metrics")
        ]

    assert answered.text == SAID
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert other.asked
    assert not any("authorization" in each.headers for each in other.asked)
    written: list[Any] = [caplog.text, *here.heard, *shown]
    assert KEY not in " ".join(written)


@every
async def test_a_key_that_it_refuses_says_what_to_do(
    dialect: Dialect, tmp_path: Path
) -> None:
    if not dialect.guards(MODELS):
        pytest.skip("its list of models wants no key")
    file = a_secret(tmp_path, "key", "another")
    async with fake_dialect(dialect, key=KEY) as server:
        tables = (ServerSetting(url=server.url, key_file=str(file)),)
        async with endpoint(server_tables=tables, wait=False) as here:
            await here.until(lambda f: any(e.problem for e in f.addresses.values()))

            said = " ".join(here.heard)
    assert f"refuses the key in {file}" in said
    assert server.url in said

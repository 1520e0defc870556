"""When descriptors run out, no server is at fault, and idle connections make room."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from typing import Any

import pytest

from edgeserve.errors import NoFiles
from edgeserve.http import upstream
from tests.edgeserve.http.talk import Client, a_request, answered, server


async def test_a_lack_of_descriptors_is_no_fault_of_the_server() -> None:
    async def script(client: Client) -> None:
        await a_request(client)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    async with server(script) as origin, upstream(connect_seconds=30) as up:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            with pytest.raises(NoFiles) as caught:
                async with up.ask(origin, "GET", "/", {}):
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(lowest)

    assert caught.value.status == 503


async def test_what_rests_makes_room_for_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(client: Client) -> None:
        while True:
            await a_request(client)
            client.say(answered(b"yes"))

    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop's methods cannot be replaced")
    tried: list[str] = []
    async with (
        server(script) as one,
        server(script) as other,
        upstream(connect_seconds=30) as up,
    ):
        async with up.ask(one, "GET", "/", {}) as answer:
            await answer.read()
        opened = loop.create_connection

        async def short(*arguments: Any, **more: Any) -> Any:
            tried.append("once more" if tried else "in vain")
            if tried == ["in vain"]:
                raise OSError(errno.EMFILE, "Too many open files")
            return await opened(*arguments, **more)

        monkeypatch.setattr(loop, "create_connection", short)
        async with up.ask(other, "GET", "/", {}) as answer:
            assert await answer.read() == b"yes"

    assert tried == ["in vain", "once more"]

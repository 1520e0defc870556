"""Every test of the relay runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import hypothesis
import pytest

hypothesis.settings.register_profile("fuzz", hypothesis.settings(), max_examples=10_000)


@pytest.hookimpl(tryfirst=True)
def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    """`make fuzz` and the tests alike: uvloop in production, asyncio elsewhere."""
    import uvloop

    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}

"""Saving: find out whether an engine can save what its slots hold."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace

import msgspec

from edgeserve.errors import NodeLost
from edgeserve.orders.caches import CacheFit
from edgeserve.runtime.files import remove
from node.engines.base import EngineSpec
from node.engines.probe import Probe, Properties

log = logging.getLogger(__name__)

SAVE_SECONDS = 10.0
"""Longest wait for a slot that holds a token."""


async def properties_of(probe: Probe, spec: EngineSpec, build: str) -> Properties:
    """Read an engine's properties, and whether it saves. Raises Unwell, NodeLost."""
    properties = await probe.properties()
    if spec.states is None or not await _saves(probe, spec):
        return properties
    fit = CacheFit(
        content=spec.content,
        build=llama_build(build or properties.build),
        kv_type=spec.launch.kv_type,
        flash_attention=spec.launch.flash_attention,
    )
    return replace(properties, saves=fit)


async def _saves(probe: Probe, spec: EngineSpec) -> bool:
    """Try it: models with images and some kinds of memory cannot be saved."""
    assert spec.states is not None  # noqa: S101 - the caller has looked
    name = f"{secrets.token_hex(8)}.part"
    body = msgspec.json.encode({"filename": name})
    try:
        async with asyncio.timeout(SAVE_SECONDS):
            status, _ = await probe.ask("POST", "/slots/0?action=save", body)
    except (TimeoutError, NodeLost):
        return False
    finally:
        await asyncio.to_thread(remove, spec.states / name)
    return status == 200


def llama_build(build: str) -> str:
    """Return what decides the format of states: llama.cpp's commit, or the wheel. Pure.

    Builds of one commit for other processors read each other's states.
    """
    return build if build.startswith("xllamacpp") else build.partition("-")[0]

"""Files for other nodes: by their content, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from edgeserve.orders.pulls import FILES, PIECE
from node.api.files import OutOfRange, range_of
from tests.node.pulls.pulling_nodes import PullingNode, some_nodes

CONTENT = b"GGUF" + bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncGenerator[PullingNode]:
    """A node with one model file, of which it knows the checksums."""
    async with some_nodes(tmp_path, "a") as (node,):
        await node.known(node.put("ORG/model.gguf", CONTENT))
        yield node


async def get(node: PullingNode, path: str, range_: str = "") -> tuple[int, bytes]:
    headers = {"range": range_} if range_ else {}
    async with (
        aiohttp.ClientSession(node.url) as session,
        session.get(f"{FILES}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_file_is_listed_once_its_checksum_is_known(node: PullingNode) -> None:
    node.put("other.gguf", b"GGUF of another size")

    status, body = await get(node, "")

    assert status == 200
    assert DIGEST.encode() in body
    assert b"ORG/model.gguf" in body
    assert b"other" not in body


@pytest.mark.parametrize(
    ("range_", "status", "content"),
    [
        ("", 200, CONTENT),
        ("bytes=0-3", 206, b"GGUF"),
        ("bytes=10000-", 206, CONTENT[10000:]),
        ("bytes=4-999999999", 206, CONTENT[4:]),
        ("bytes=999999-", 416, None),
        ("apples=1", 206, CONTENT),
    ],
)
async def test_a_file_is_sent_whole_or_in_part(
    range_: str, status: int, content: bytes | None, node: PullingNode
) -> None:
    found, body = await get(node, f"/{DIGEST}", range_)

    assert found == status
    assert content is None or body == content


@pytest.mark.parametrize(
    "name",
    [
        "0" * 64, "model.gguf", "ORG%2Fmodel.gguf", "..%2f..%2fstate%2fchecksums.json",
        "%2Fetc%2Fpasswd", "", f"{DIGEST}/..", DIGEST.upper(),
    ],
)  # fmt: skip
async def test_nothing_is_named_by_a_path(name: str, node: PullingNode) -> None:
    status, _ = await get(node, f"/{name}")

    assert status == 404


async def test_a_file_that_changed_is_not_given_for_what_it_was(
    node: PullingNode,
) -> None:
    node.put("ORG/model.gguf", CONTENT[::-1] + b"!")

    status, _ = await get(node, f"/{DIGEST}")

    assert status == 404


async def test_checksums_are_computed_once(tmp_path: Path) -> None:
    async with some_nodes(tmp_path, "a") as (node,):
        await node.known(node.put("model.gguf", CONTENT))
    async with some_nodes(tmp_path, "a") as (node,):
        status, body = await get(node, "")

    assert status == 200
    assert DIGEST.encode() in body


def test_ranges_are_bounded_by_the_file() -> None:
    assert range_of(f"bytes=0-{PIECE - 1}", 10) == (0, 10)
    assert range_of("bytes=3-", 10) == (3, 7)
    with pytest.raises(OutOfRange):
        range_of("bytes=10-", 10)

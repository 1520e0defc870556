"""The routes that change the fleet: for the owner of the balancer only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from balancer.api.nodes import NoSuchNode, named
from balancer.app import Balancer, running
from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import BadRequest, SettingsError
from tests.balancer.discovery.joiners import a_joiner
from tests.balancer.endpoint import CHAT, QUICK, chat
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.tokens import TOKEN, GivenTokens
from tests.patience import PATIENCE

NODES = "/edgeserve/v1/nodes"
ACTIONS = ("approve", "deny", "revoke", "allow")
PI, NUC = "1111" * 8, "1122" * 8


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return {
        "port": 0,
        "host": "127.0.0.1",
        "discover": False,
        "calibrate": False,
        "state_dir": tmp_path / "state",
        "token_file": tmp_path / "token",
        "approve": True,
    }


class Managed:
    """A balancer, and what its commands ask of it."""

    def __init__(
        self, balancer: Balancer, session: aiohttp.ClientSession, state_dir: Path
    ) -> None:
        self.balancer, self.session = balancer, session
        self.file = admin_key_file(state_dir, balancer.origin.port)

    async def do(self, path: str, body: Any = None, key: str | None = None) -> Any:
        """Post with the local key; return the status and the answer."""
        if key is None:
            key = self.file.read_text().strip()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with self.session.post(path, json=body or {}, headers=headers) as answer:
            return answer.status, await answer.json()

    async def nodes(self) -> list[Any]:
        async with self.session.get(NODES) as answer:
            return list(await answer.json())

    async def until(self, state: str) -> Any:
        """Wait until the one node is in that state."""
        async with asyncio.timeout(PATIENCE):
            while True:
                rows = await self.nodes()
                if [row["state"] for row in rows] == [state]:
                    return rows[0]
                await asyncio.sleep(0.01)


@asynccontextmanager
async def managed(settings: dict[str, Any], *nodes: str) -> AsyncGenerator[Managed]:
    settings = {**settings, "nodes": nodes}
    async with (
        running(
            BalancerSettings(**settings), say=lambda _: None, pace=QUICK
        ) as balancer,
        aiohttp.ClientSession(balancer.origin.url) as session,
    ):
        yield Managed(balancer, session, settings["state_dir"])


@asynccontextmanager
async def a_fleet_node(**script: Any) -> AsyncGenerator[FakeNode]:
    tokens = GivenTokens(TOKEN)
    async with fake_node("pi", Behaviour(**script), tokens=tokens) as node:
        yield node


async def test_a_node_has_the_address_by_which_it_is_spoken_to(
    settings: dict[str, Any],
) -> None:
    async with a_fleet_node() as node:
        plain = node.url.replace("https:", "http:")
        async with managed(settings, plain) as at:
            row = await at.until("up")

    assert row["url"] == plain.replace("http:", "https:")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("key", ["", "admin-of-another-balancer", TOKEN])
async def test_without_the_key_nothing_changes_though_clients_need_none(
    action: str, key: str, settings: dict[str, Any]
) -> None:
    async with managed(settings) as at:
        status, answer = await at.do(f"{NODES}/pi/{action}", key=key)

    assert status == 403
    assert "admin key" in answer["error"]["message"]


async def test_the_key_is_for_its_owner_and_gone_at_the_end(
    settings: dict[str, Any],
) -> None:
    async with managed(settings) as at:
        file, first = at.file, at.file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    assert not file.exists()
    async with managed(settings) as at:
        assert at.file.read_text() != first


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_node_that_is_not_there_is_named(
    action: str, settings: dict[str, Any]
) -> None:
    async with managed(settings) as at:
        status, answer = await at.do(f"{NODES}/a%20b/{action}", {"code": "123-456"})

    assert status == 404
    assert "'a b'" in answer["error"]["message"]


async def test_a_machine_is_listed_with_its_code_and_let_in(
    settings: dict[str, Any],
) -> None:
    async with managed(settings) as at, a_joiner() as joiner:
        request = _fields(joiner.request())
        assert (await at.do("/edgeserve/v1/join", request, key=""))[0] == 200
        (row,) = await at.nodes()
        assert (row["state"], row["name"]) == ("asking", "pi")
        assert row["code"] == await joiner.code()

        wrong = {"code": "wrong"}
        assert (await at.do(f"{NODES}/pi/approve", wrong))[0] == 409
        right = {"code": row["code"]}
        assert (await at.do(f"{NODES}/pi/approve", right))[0] == 200
        assert await joiner.token() == TOKEN


def _fields(request: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 65536},
        {"id": "x"},
        {"id": "AA" * 16},
        {"knock": "1"},
        {"name": ""},
        {"name": "n" * 65},
    ],
)
async def test_a_request_to_join_of_another_shape_is_refused(
    change: dict[str, Any], settings: dict[str, Any]
) -> None:
    fields = {"port": 1, "name": "pi", "id": "aa" * 16, "knock": "aa" * 16}
    async with managed(settings) as at:
        status, _ = await at.do("/edgeserve/v1/join", {**fields, **change}, key="")

    assert status == 400


async def test_a_web_page_cannot_make_the_balancer_connect(
    settings: dict[str, Any],
) -> None:
    async with managed(settings) as at, a_joiner() as joiner:
        async with at.session.post(
            "/edgeserve/v1/join",
            json=_fields(joiner.request()),
            headers={"origin": "https://evil.example"},
        ) as answer:
            assert answer.status == 403

        assert not joiner.exchange.begun


async def test_a_revoked_node_is_out_at_once_and_after_a_restart(
    settings: dict[str, Any],
) -> None:
    async with a_fleet_node() as node:
        async with managed(settings, node.url) as at:
            row = await at.until("up")
            assert (await at.do(f"{NODES}/pi/revoke"))[0] == 200
            assert [each["state"] for each in await at.nodes()] == ["revoked"]
            status, _ = await at.do(CHAT, chat(), key="")
            assert status == 503
        async with managed(settings, node.url) as at:
            async with asyncio.timeout(PATIENCE):
                while not any(each["url"] and each["problem"] for each in at_rows(at)):
                    await asyncio.sleep(0.01)
            assert not at.balancer.state.current.candidates
            status, answer = await at.do(f"{NODES}/{row['id'][:8]}/allow")
            assert (status, answer["name"]) == (200, "pi")
            await at.until("up")


def at_rows(at: Managed) -> list[dict[str, Any]]:
    addresses = at.balancer.state.current.fleet.addresses.values()
    return [{"url": address.key, "problem": address.problem} for address in addresses]


async def test_a_node_that_left_is_revoked_by_its_whole_id(
    settings: dict[str, Any],
) -> None:
    async with managed(settings) as at:
        assert (await at.do(f"{NODES}/{PI}/revoke"))[0] == 200
        (row,) = await at.nodes()

    assert (row["id"], row["state"]) == (PI, "revoked")


async def test_without_a_fleet_token_no_machine_can_be_let_in(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "empty"))
    with pytest.raises(SettingsError, match="token new"):
        async with managed({**settings, "token_file": None}):
            pass


def test_a_node_is_named_by_name_id_or_the_start_of_its_id() -> None:
    known = {PI: "pi", NUC: "nuc"}

    assert [named(each, known, "") for each in ("pi", NUC, "1122")] == [PI, NUC, NUC]
    for unknown in ("p", "112", "11220"):
        with pytest.raises(NoSuchNode):
            named(unknown, known, "is known")
    with pytest.raises(BadRequest, match="use the id"):
        named("pi", {PI: "pi", NUC: "pi"}, "")

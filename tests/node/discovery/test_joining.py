"""A machine asks a real balancer to let it in, over plain HTTP or its own TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from balancer.app import running
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import CommandError, SettingsError
from edgeserve.http.types import Origin
from node.discovery.identity import Identity, Machine
from node.discovery.joining import balancer_at, joined
from tests.fakes.tokens import TOKEN
from tests.patience import PATIENCE


def settings(
    folder: Path, *, tls: bool = False, approve: bool = True
) -> BalancerSettings:
    (folder / "token").write_text(f"{TOKEN}\n")
    return BalancerSettings(
        port=0,
        host="127.0.0.1",
        discover=False,
        state_dir=folder / "balancer",
        token_file=folder / "token",
        approve=approve,
        tls=tls,
    )


class Newcomer:
    """A machine that asks; `code` is set once it shows one."""

    def __init__(self, balancer: Origin, folder: Path) -> None:
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stop = asyncio.Event()
        identity = Identity(folder, Machine(machine_id="1"))
        self.token = asyncio.ensure_future(
            joined(
                balancer,
                port=0,
                name="pi",
                identity=identity,
                met=self.code.set_result,
                stop=self.stop,
            )
        )


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_an_approved_machine_gets_the_token(tls: bool, tmp_path: Path) -> None:
    said: list[str] = []
    async with (
        asyncio.timeout(PATIENCE),
        running(settings(tmp_path, tls=tls), say=said.append) as balancer,
    ):
        pi = Newcomer(balancer.origin, tmp_path)
        code = await pi.code
        assert any(f"asks to join with code {code}" in line for line in said)
        await _approve(balancer.origin, tmp_path, code)

        assert await pi.token == TOKEN
    assert any(f"edgeserve join {balancer.origin.url}" in line for line in said)


async def _approve(at: Origin, folder: Path, code: str) -> None:
    import ssl

    import aiohttp

    key = (folder / "balancer" / f"admin-{at.port}.key").read_text().strip()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with (
        aiohttp.ClientSession(at.url) as session,
        session.post(
            "/edgeserve/v1/nodes/pi/approve",
            json={"code": code},
            headers={"authorization": f"Bearer {key}"},
            ssl=context,
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def test_a_machine_that_stops_leaves_the_list(tmp_path: Path) -> None:
    said: list[str] = []
    async with (
        asyncio.timeout(PATIENCE),
        running(settings(tmp_path), say=said.append) as balancer,
    ):
        pi = Newcomer(balancer.origin, tmp_path)
        await pi.code
        pi.stop.set()

        assert await pi.token is None


async def test_a_balancer_without_approve_says_so(tmp_path: Path) -> None:
    async with running(settings(tmp_path, approve=False), say=lambda _: None) as at:
        with pytest.raises(CommandError, match="start it with --approve"):
            await Newcomer(at.origin, tmp_path).token


@pytest.mark.parametrize(
    "url", ["nuc", "nuc:8080", "ftp://nuc", "http://", "http://a:b"]
)
def test_what_is_no_url_of_a_balancer_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        balancer_at(url)


def test_an_address_may_be_that_of_the_api() -> None:
    assert balancer_at("http://nuc:8080/v1/") == Origin("nuc", 8080)
    assert balancer_at("https://[fd00::1]") == Origin("fd00::1", 8080, tls=True)

"""The key that the page gets on the balancer's own machine, and who does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeserve.security.account import same_account
from tests.balancer.endpoint import Answered, Endpoint, a_secret, endpoint
from tests.fakes.node import fake_node

PATH = "/edgeserve/v1/dashboard/key"
JSON = "application/json"


async def asked(balancer: Endpoint, **headers: str) -> Answered:
    """Ask as the balancer's own page does, but for some header fields."""
    url = balancer.balancer.origin.url
    usual = {"origin": url, "content-type": JSON, "sec-fetch-site": "same-origin"}
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    return await balancer.post(PATH, b"{}", usual | fields)


async def test_a_page_of_this_machine_and_account_may_change_the_fleet() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        key = (await asked(balancer)).json["key"]
        bearer = {"authorization": f"Bearer {key}"}
        answer = await balancer.post("/edgeserve/v1/models/small/unload", b"{}", bearer)

    assert answer.status == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"sec_fetch_site": "cross-site"},
        {"x_forwarded_for": "203.0.113.9"},
        {"host": "192.168.1.2:8080", "origin": "http://192.168.1.2:8080"},
    ],
    ids=str,
)
async def test_no_other_page_gets_the_key(headers: dict[str, str]) -> None:
    async with endpoint() as balancer:
        answer = await asked(balancer, **headers)

    assert answer.status == 403
    assert b"admin-" not in answer.body


async def test_a_name_that_points_here_gets_no_key() -> None:
    name = "evil.example:8080"
    async with endpoint() as balancer:
        answer = await asked(balancer, host=name, origin=f"http://{name}")

    assert answer.status == 421


async def test_where_clients_have_keys_the_page_has_to_be_told_one(
    tmp_path: Path,
) -> None:
    keys = a_secret(tmp_path, "keys", "sk-" + "k" * 40)
    async with endpoint(api_key_file=keys) as balancer:
        answer = await asked(balancer)

    assert answer.status == 403


async def test_another_account_of_this_machine_gets_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uid = os.getuid()
    async with endpoint() as balancer:
        monkeypatch.setattr("os.getuid", lambda: uid + 1)
        answer = await asked(balancer)

    assert answer.status == 403


@pytest.mark.parametrize("action", ["load", "unload", "pin", "limit"])
async def test_a_page_of_another_site_changes_nothing(action: str) -> None:
    path = f"/edgeserve/v1/models/small/{action}"
    async with fake_node() as node, endpoint(node) as balancer:
        for origin in ("http://evil.example", "http://localhost:3000", "null"):
            for kind in ("text/plain", JSON):
                fields = {"origin": origin, "content-type": kind}
                assert (await balancer.post(path, b"{}", fields)).status in {401, 403}
        asked = {
            "origin": "http://evil.example",
            "access-control-request-method": "POST",
        }
        async with balancer.session.options(path, headers=asked) as preflight:
            assert "access-control-allow-origin" not in preflight.headers

    assert node.loads.loads == []


ROW = (
    "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid} 0 1\n"
)
HERE, THERE = "0100007F:9C40", "0100007F:1F90"
SIX_HERE = "00000000000000000000000001000000:9C40"
SIX_THERE = "00000000000000000000000001000000:1F90"
MAPPED_HERE = "0000000000000000FFFF00000100007F:9C40"


@pytest.mark.parametrize(
    ("local", "remote", "state", "uid", "same"),
    [
        (HERE, THERE, "01", os.getuid(), True),
        (HERE, THERE, "01", os.getuid() + 1, False),
        (HERE, THERE, "06", os.getuid(), False),
        (THERE, HERE, "01", os.getuid(), False),
    ],
)
def test_the_account_is_the_one_of_the_other_end(
    tmp_path: Path, local: str, remote: str, state: str, uid: int, same: bool
) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "head\n" + ROW.format(local=local, remote=remote, state=state, uid=uid)
    )

    found = same_account(("127.0.0.1", 40000), ("127.0.0.1", 8080), (table,))

    assert found is same


def test_the_account_is_known_over_ipv6_and_unknown_from_elsewhere(
    tmp_path: Path,
) -> None:
    table, here = tmp_path / "tcp6", os.getuid()
    table.write_text(
        "head\n" + ROW.format(local=SIX_HERE, remote=SIX_THERE, state="01", uid=here)
    )

    assert same_account(("::1", 40000), ("::1", 8080), (table,))
    assert not same_account(("::1", 40001), ("::1", 8080), (table,))
    assert not same_account(("192.0.2.1", 40000), ("192.0.2.2", 8080), (table,))
    assert not same_account(("::1", 40000), ("::1", 8080), (tmp_path / "none",))

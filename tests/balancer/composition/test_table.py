"""Routes that are set while the balancer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from balancer.composition.table import FILE, RouteTable
from edgeserve.config.paths import admin_key_file
from edgeserve.config.routes import ModelRoute
from edgeserve.runtime import files
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint
from tests.fakes.node import fake_node

ROUTES = "/edgeserve/v1/routes"
FIXED = ModelRoute(name="fixed", models=("small",))


async def change(
    balancer: Endpoint, method: str, name: str, body: Any = None
) -> Answered:
    """Ask as a command on the balancer's machine does."""
    path, port = balancer.balancer.state.routes._path, balancer.balancer.origin.port
    assert path is not None
    key = admin_key_file(path.parent, port).read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    async with balancer.session.request(
        method, URL(f"{ROUTES}/{name}", encoded=True), json=body, headers=headers
    ) as answer:
        return Answered(answer, await answer.read())


async def test_a_route_that_is_set_counts_at_once_and_after_a_restart(
    tmp_path: Path,
) -> None:
    async with fake_node() as node:
        async with endpoint(node, state_dir=tmp_path) as balancer:
            body = {"models": ["Big", "small"], "when": ["away"], "full_seconds": 5}
            made = await change(balancer, "PUT", "Mine", body)
            now = await balancer.post(CHAT, chat(model="mine"))
        async with endpoint(node, state_dir=tmp_path) as balancer:
            later = await balancer.post(CHAT, chat(model="mine"))
            shown = (await balancer.get(ROUTES)).json
            gone = await change(balancer, "DELETE", "mine")
            none = await balancer.post(CHAT, chat(model="mine"))
        async with endpoint(node, state_dir=tmp_path) as balancer:
            still = (await balancer.get(ROUTES)).json

    assert made.json == {
        "name": "mine",
        "models": ["big", "small"],
        "when": ["away"],
        "full_seconds": 5.0,
        "from": "set",
    }
    assert (now.status, later.status, gone.status, none.status) == (200, 200, 200, 404)
    assert (shown, still) == ([made.json], [])


async def test_a_route_of_the_settings_file_is_neither_changed_nor_removed() -> None:
    async with endpoint(routes=(FIXED,)) as balancer:
        changed = await change(balancer, "PUT", "fixed", {"models": ["big"]})
        removed = await change(balancer, "DELETE", "Fixed")
        shown = (await balancer.get(f"{ROUTES}/fixed")).json

    assert (changed.status, removed.status) == (409, 409)
    assert "is in the settings file, under [[route]]" in removed.error
    assert (shown["models"], shown["from"]) == (["small"], "file")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"models": []}, "`models` must be a list"),
        ({"models": ["a"], "when": ["ful"]}, "away, full, too-long; did you mean"),
        ({"models": ["a"], "wen": []}, "did you mean `when`?"),
        ({"models": ["fixed"]}, "route x names fixed, which is a route itself"),
        ({"models": ["a"], "name": "y"}, "the path names route 'x', and the body 'y'"),
    ],
)
async def test_a_wrong_route_is_refused_with_the_reason(
    body: dict[str, Any], said: str
) -> None:
    async with endpoint(routes=(FIXED,)) as balancer:
        answer = await change(balancer, "PUT", "x", body)

    assert answer.status == 400
    assert said in answer.error


async def test_a_route_may_be_called_as_other_services_call_their_models() -> None:
    name = "OpenAI/gpt-4o:latest"
    async with fake_node() as node, endpoint(node) as balancer:
        made = await change(
            balancer, "PUT", quote(name, safe=""), {"models": ["small"]}
        )
        answer = await balancer.post(CHAT, chat(model=name))

    assert (made.json["name"], answer.status) == ("openai/gpt-4o", 200)


async def test_a_route_that_is_not_there_cannot_be_removed() -> None:
    async with endpoint(routes=(FIXED,)) as balancer:
        answer = await change(balancer, "DELETE", "x")

    assert (answer.status, answer.json["error"]["code"]) == (404, "route_not_found")
    assert "there are: fixed" in answer.error


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_only_an_admins_key_changes_routes(method: str) -> None:
    async with (
        endpoint() as balancer,
        balancer.session.request(method, f"{ROUTES}/x", json={}) as answer,
    ):
        assert answer.status == 403


@pytest.mark.parametrize(
    "content", ["{", '{"routes": [{"name": "a"}]}', '{"routes": 3}', ""]
)
async def test_a_damaged_file_costs_its_routes_and_is_told(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(content)

    table = RouteTable((FIXED,), tmp_path)

    assert list(table.by_name) == ["fixed"]
    assert FILE in caplog.text


async def test_one_that_the_settings_now_contradict_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await RouteTable((), tmp_path).put(ModelRoute(name="a", models=("fixed",)))
    await RouteTable((), tmp_path).put(ModelRoute(name="b", models=("small",)))

    table = RouteTable((FIXED,), tmp_path)

    assert list(table.by_name) == ["fixed", "b"]
    assert "left out: route a names fixed" in caplog.text


async def test_on_a_full_disk_a_route_counts_until_the_end_and_the_answer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace_file", full)
    async with endpoint(state_dir=tmp_path) as balancer:
        answer = await change(balancer, "PUT", "x", {"models": ["a"]})
        shown = (await balancer.get(ROUTES)).json

    assert (answer.status, answer.json["error"]["code"]) == (507, "not_stored")
    assert "until the balancer ends" in answer.error
    assert [each["name"] for each in shown] == ["x"]

"""What people do in the dashboard, in headless Chromium: `make check-dashboard`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from edgeserve.config.routes import ModelRoute
from edgeserve.security.tokens import new_secret
from tests.balancer.dashboard.browser import CHROMIUM, browsing
from tests.balancer.dashboard.fleet import HOSTILE, QWEN, shown
from tests.balancer.endpoint import CHAT, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="needs Chromium and Playwright: make check-dashboard"
)


async def test_a_guest_who_begins_at_the_chat_sees_its_models_with_the_key(
    tmp_path: Path,
) -> None:
    secret = new_secret("sk")
    add_key(store_in(tmp_path), ClientKey(id=key_id(secret), name="guest"))
    async with (
        shown(state_dir=tmp_path) as fleet,
        browsing(fleet.balancer.balancer.origin.url, width=390) as tab,
    ):
        await tab.page.goto(f"{tab.url}/#chat")
        await tab.page.get_by_text("API key missing or wrong").wait_for()
        await tab.page.locator("dialog[open] #key").fill(secret)
        await tab.page.keyboard.press("Enter")
        await tab.page.locator("#model option").first.wait_for(state="attached")
        await tab.page.get_by_text("Ask something.").wait_for()

    assert tab.wrong == []


async def test_a_long_answer_stays_in_sight_and_is_stopped_by_the_keyboard() -> None:
    async with (
        fake_node("desk", Behaviour(decode=100, length=4000)) as node,
        endpoint(node) as balancer,
        browsing(balancer.balancer.origin.url, width=390) as tab,
    ):
        page = tab.page
        await tab.open("chat", wait="#words")
        await page.locator("#model option").first.wait_for(state="attached")
        await page.locator("#words").focus()
        await page.keyboard.type("Tell me everything.")
        await page.keyboard.press("Enter")
        await page.wait_for_function(TALL)
        await page.mouse.wheel(0, -9999)
        await page.wait_for_function("() => scrollY === 0")
        await asyncio.sleep(0.3)
        assert await page.evaluate("scrollY") == 0  # who reads above is left there
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.locator("form.ask button", has_text="Send").wait_for()
        assert await page.evaluate("document.activeElement.id") == "words"

    assert tab.wrong == []


TALL = (
    "() => document.documentElement.scrollHeight > innerHeight + 300 && scrollY > 300"
)


async def test_a_button_that_was_pressed_keeps_the_focus() -> None:
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.open("models", wait=".card")
        button = tab.page.get_by_role("button", name=f"Load {QWEN[:-6]}Q8_0")
        await button.focus()
        await tab.page.keyboard.press("Enter")
        await tab.page.get_by_text("workshop loads").wait_for()
        assert await tab.page.evaluate("document.activeElement.tagName") == "BUTTON"


async def test_a_pull_that_failed_is_dismissed() -> None:
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        fleet.nodes[1].files.pulls(state="failed", problem="it is gated")
        await tab.open("models", wait=".card")
        await tab.page.get_by_role("button", name="Dismiss the pull of hf.co").click()
        await tab.page.get_by_text("is off the list").wait_for()
        await tab.page.locator("ul.pulls").wait_for(state="detached")

    assert tab.wrong == []


async def test_a_model_is_removed_after_a_question() -> None:
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.open("models", wait=".card")
        button = tab.page.get_by_role("button", name=f"Remove {QWEN[:-6]}Q8_0")
        tab.agrees += [False, True]
        await button.click()
        await eventually(lambda: tab.agrees == [True])
        assert fleet.nodes[0].files.removed == []
        await button.click()
        await tab.page.get_by_text("workshop has removed").wait_for()

    assert fleet.nodes[0].files.removed == [f"{QWEN[:-6]}Q8_0"]


async def test_a_pinned_engine_is_not_offered_to_be_unloaded() -> None:
    pinned = an_engine(QWEN, pinned=True)
    async with (
        fake_node("desk", engine=pinned) as node,
        endpoint(node) as balancer,
        browsing(balancer.balancer.origin.url) as tab,
    ):
        await tab.open("models", wait=".card")
        await tab.page.get_by_text("stays: it is pinned").wait_for()
        assert await tab.page.get_by_role("button", name="Unload").count() == 0


async def test_an_address_that_is_no_valid_one_shows_a_view_all_the_same() -> None:
    async with endpoint() as balancer, browsing(balancer.balancer.origin.url) as tab:
        await tab.open("requests/%E0%A4%A", wait=".empty")

    assert tab.wrong == []


async def test_a_balancer_that_drained_and_is_gone_is_said_to_be_gone() -> None:
    async with fake_node("desk") as node, endpoint(node) as balancer:
        url = balancer.balancer.origin.url
        async with browsing(url) as tab:
            await tab.open("fleet", wait=".machine")
            balancer.balancer.state.in_flight.draining = True
            await tab.page.get_by_text("The balancer is shutting down").wait_for()
            await tab.page.route("**/live", lambda route: route.abort())
            balancer.balancer.taken.set()
            await tab.page.get_by_text("The balancer does not answer at").wait_for()


async def test_why_says_which_model_of_a_route_answers() -> None:
    async with (
        fake_node("desk") as node,
        endpoint(node, routes=(ASSISTANT,)) as balancer,
        browsing(balancer.balancer.origin.url) as tab,
    ):
        answer = await balancer.post(CHAT, chat("hi", "assistant"))
        id_ = answer.headers["x-edgeserve-request-id"]
        await tab.open(f"requests/{id_}", wait=".attempt")
        await tab.page.get_by_text("Route assistant: small answers (").wait_for()

    assert tab.wrong == []


ASSISTANT = ModelRoute(name="assistant", models=("small",))


async def test_of_many_machines_the_legend_names_those_that_did_something() -> None:
    async with AsyncExitStack() as stack:
        names = ("busy", *(f"idle-{number:02}" for number in range(15)))
        nodes = [
            await stack.enter_async_context(
                fake_node(each, engine=an_engine(f"{each}:Q4_0"))
            )
            for each in names
        ]
        balancer = await stack.enter_async_context(endpoint(*nodes))
        tab = await stack.enter_async_context(browsing(balancer.balancer.origin.url))
        await tab.open("live", wait=".chart")
        idle = tab.page.locator(".legend li", has_text="idle-")
        assert await idle.count() == 0
        await balancer.post(CHAT, chat("hi", "busy", stream=True))
        busy = tab.page.locator(".legend li", has_text="busy")
        await busy.first.wait_for()
        assert await idle.count() == 0

    assert tab.wrong == []


async def test_on_a_phone_a_long_name_leaves_room_for_the_reason() -> None:
    async with (
        shown(hostile=True) as fleet,
        browsing(fleet.balancer.balancer.origin.url, width=390) as tab,
    ):
        answer = await fleet.balancer.post(CHAT, chat("hi", HOSTILE))
        id_ = answer.headers["x-edgeserve-request-id"]
        await tab.open(f"requests/{id_}", wait=".attempt")
        reason = tab.page.locator(".compare .chosen td").last
        box = await reason.bounding_box()

    assert box["width"] > 50

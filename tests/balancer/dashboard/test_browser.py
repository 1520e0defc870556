"""The dashboard in headless Chromium; `make check-dashboard` runs this."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from edgeserve.orders.log import LogLine
from edgeserve.security.tokens import new_secret
from tests.balancer.dashboard.browser import CHROMIUM, PICTURES, Tab, browsing
from tests.balancer.dashboard.fleet import HOSTILE, QWEN, Shown, shown, traffic
from tests.balancer.endpoint import CHAT, a_secret, chat, endpoint, eventually
from tests.fakes.node import fake_node

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="needs Chromium and Playwright: make check-dashboard"
)

VIEWS = ("fleet", "live", "requests", "models", "usage", "chat")
TRAFFIC_SECONDS = 40.0 if PICTURES else 2.0
PICTURED = {
    *(f"{view}-1440-light" for view in ("fleet", "live", "why", "models")),
    *("fleet-1440-dark", "live-1440-dark", "fleet-390-light", "why-390-dark"),
}
SIZES = [(w, s) for w in (1440, 390) for s in ("light", "dark")]


@asynccontextmanager
async def busy_fleet(**settings: bool) -> AsyncGenerator[Shown]:
    """Run the fleet of fakes, with requests that come and go."""
    async with shown(**settings) as fleet:
        asking = asyncio.ensure_future(traffic(fleet))
        try:
            yield fleet
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking


async def failed_over(fleet: Shown) -> str:
    """Wait for a request that was at two machines; return its id."""
    records = fleet.balancer.balancer.state.records

    def found() -> list[str]:
        return [e.id for e in records if len(e.attempts) > 1 and e.ended is not None]

    await eventually(lambda: bool(found()))
    return found()[0]


@pytest.mark.parametrize(("width", "scheme"), SIZES)
async def test_every_view_is_accessible_and_fits(width: int, scheme: str) -> None:
    async with (
        busy_fleet() as fleet,
        browsing(
            fleet.balancer.balancer.origin.url, width=width, scheme=scheme, axe=True
        ) as tab,
    ):
        moved = await failed_over(fleet)
        await tab.open("fleet", wait=".machine")
        await asyncio.sleep(TRAFFIC_SECONDS)
        found = {}
        for view in (*VIEWS, f"requests/{moved}"):
            await shown_whole(tab, view)
            found[view] = await tab.axe()
            name = "why" if "/" in view else view
            if f"{name}-{width}-{scheme}" in PICTURED:
                await tab.picture(f"{name}-{width}-{scheme}")
            wide = "document.documentElement.scrollWidth"
            assert await tab.page.evaluate(wide) <= width, view

    assert {view: said for view, said in found.items() if said} == {}
    assert tab.wrong == []


async def shown_whole(tab: Tab, view: str) -> None:
    """Show a view as it is with data; in the chat, ask something."""
    waits = {"live": ".uplot", "models": ".card", "usage": "table", "chat": "#words"}
    await tab.page.evaluate("place => { location.hash = place }", view)
    await tab.page.locator(waits.get(view, "main h1")).first.wait_for()
    if "/" in view:
        await tab.page.locator(".attempt").first.wait_for()
    if view == "chat":
        await tab.page.locator("#model").select_option("qwen3-8b")
        await tab.page.locator("#words").fill("Why is the sky blue?")
        await tab.page.keyboard.press("Enter")
        await tab.page.get_by_text("why there").wait_for()


@pytest.mark.skipif(not PICTURES, reason="makes a picture: DASHBOARD_PICTURES=…")
async def test_a_failover_has_a_picture_for_the_documents() -> None:
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        asked = (fleet.ask("llama3.2-3b", "Name three rivers.") for _ in range(4))
        await asyncio.gather(*asked)
        moved = await failed_over(fleet)
        await tab.open(f"requests/{moved}", wait=".attempt")
        await tab.picture("failover", "tr.open", "tr.why")

    assert tab.wrong == []


async def test_nothing_is_refused_by_the_policy_and_nothing_is_asked_elsewhere() -> (
    None
):
    async with (
        busy_fleet() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        for view in VIEWS:
            await tab.open(view)
            await shown_whole(tab, view)
        weight = await tab.page.evaluate(
            "performance.getEntriesByType('resource').concat("
            "performance.getEntriesByType('navigation'))"
            ".filter(each => !each.name.includes('/v1/'))"
            ".reduce((sum, each) => sum + each.decodedBodySize, 0)"
        )
        paint = await tab.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )

    print(f"\nthe page weighs {weight / 1000:.0f} kB; first paint {paint:.0f} ms")
    assert tab.wrong == []
    assert 50_000 < weight < 300_000


async def test_names_that_would_be_markup_are_text() -> None:
    async with (
        busy_fleet(hostile=True) as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await fleet.balancer.post(CHAT, chat("hi", HOSTILE))
        await fleet.balancer.post(CHAT, chat("hi", HOSTILE, stream=True))
        for view in VIEWS:
            await tab.open(view)
            await (
                tab.page.locator("main")
                .get_by_text(HOSTILE)
                .first.wait_for(state="attached")
            )
            assert await tab.page.locator("main img").count() == 0

    assert tab.wrong == []


async def test_the_keyboard_is_enough() -> None:
    async with (
        busy_fleet() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        page = tab.page
        await tab.open("fleet", wait=".machine")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await reach(tab, "Requests")
        await page.keyboard.press("Enter")
        await page.locator("main h1", has_text="Requests").wait_for()
        assert await page.evaluate("document.activeElement.id") == "main"

        await page.locator(".requests th a").first.wait_for()
        await reach(tab, r"\d\d:\d\d:\d\d")
        await page.keyboard.press("Enter")
        await page.locator(".why").wait_for()
        focused = await page.evaluate("document.activeElement.ariaExpanded")
        assert focused == "true"  # a table that changes each second keeps the focus

        await tab.open("chat", wait="#words")
        await page.locator("#words").focus()
        await page.keyboard.type("Hello?")
        await page.keyboard.press("Enter")
        await page.locator(".facts").wait_for()
        await reach(tab, "Auto")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.documentElement.dataset.theme") == "light"

    assert tab.wrong == []


async def reach(tab: Tab, text: str) -> None:
    """Press Tab until something with that text has the focus."""
    for _ in range(80):
        await tab.page.keyboard.press("Tab")
        found = await tab.page.evaluate("document.activeElement.textContent")
        if re.fullmatch(text, found.strip()):
            return
    raise AssertionError(f"Tab does not reach {text!r}")


async def test_a_page_of_this_machine_loads_and_unloads_without_being_told_a_key() -> (
    None
):
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.open("models", wait=".card")
        await tab.page.get_by_role("button", name=f"Load {QWEN[:-6]}Q8_0").click()
        await eventually(lambda: "qwen3-8b:Q8_0" in fleet.nodes[0].loads.loads)
        kept = await tab.page.evaluate("JSON.stringify({...sessionStorage})")

    assert "admin-" not in kept
    assert tab.wrong == []


async def test_where_keys_are_on_the_page_asks_for_one_and_keeps_it_in_its_tab(
    tmp_path: Path,
) -> None:
    secret = "sk-" + "k" * 40
    keys = a_secret(tmp_path, "keys", secret)
    async with (
        shown(api_key_file=keys) as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.page.goto(tab.url)
        await tab.page.locator("dialog[open] #key").fill("sk-wrong")
        await tab.page.keyboard.press("Enter")
        await tab.page.get_by_text("API key missing or wrong").wait_for()
        await tab.page.locator("dialog[open] #key").fill(secret)
        await tab.page.keyboard.press("Enter")
        await tab.page.locator(".machine").first.wait_for()
        local = await tab.page.evaluate("JSON.stringify({...localStorage})")
        await tab.page.reload()
        await tab.page.locator(".machine").first.wait_for()
        where = await tab.page.evaluate("location.href + document.cookie")

    assert secret not in local + where
    assert tab.wrong == []


async def test_a_key_that_is_no_admins_can_chat(tmp_path: Path) -> None:
    secret = new_secret("sk")
    add_key(store_in(tmp_path), ClientKey(id=key_id(secret), name="guest"))
    async with (
        shown(state_dir=tmp_path) as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.page.goto(tab.url)
        await tab.page.locator("dialog[open] #key").fill(secret)
        await tab.page.keyboard.press("Enter")
        await tab.page.get_by_text("This key may use models").wait_for()
        await shown_whole(tab, "chat")

    assert tab.wrong == []


async def test_a_page_says_that_its_balancer_is_gone_and_goes_on_when_it_is_back() -> (
    None
):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with fake_node("desk") as node, browsing(url) as tab:
        async with endpoint(node, port=port):
            await tab.open("fleet", wait=".machine")
        await tab.page.get_by_text("The balancer does not answer at").wait_for()
        async with endpoint(node, port=port):
            await tab.page.locator(".connection.ok").wait_for()
            assert await tab.page.locator(".banner").count() == 0


@pytest.mark.parametrize(("width", "scheme"), SIZES)
async def test_the_log_of_a_machine_is_followed_while_it_is_open(
    width: int, scheme: str
) -> None:
    async with (
        shown() as fleet,
        browsing(
            fleet.balancer.balancer.origin.url, width=width, scheme=scheme, axe=True
        ) as tab,
    ):
        node = fleet.nodes[0]
        node.kept = [
            a_line(f"{HOSTILE} {number} " + "word " * 30) for number in range(60)
        ]
        await tab.open("fleet", wait=".machine")
        machine = tab.page.locator(".machine", has_text=node.name)
        await machine.get_by_text("Log", exact=True).click()
        log = machine.locator("pre")
        await log.get_by_text(f"{HOSTILE} 59").wait_for()
        node.kept += [a_line("small: loads")]
        await log.get_by_text("small: loads").wait_for()
        await tab.page.wait_for_function(AT_THE_END)
        found = await tab.axe()
        wide = await tab.page.evaluate("document.documentElement.scrollWidth")
        await machine.get_by_text("Log", exact=True).click()
        await log.wait_for(state="hidden")

    assert found == []
    assert wide <= width
    assert tab.wrong == []


AT_THE_END = """() => {
  const box = document.querySelector("pre");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 8;
}"""


def a_line(text: str) -> LogLine:
    return LogLine(at=1.0, level="warning", source="node.shelf", text=text)


async def test_a_log_that_cannot_be_had_says_why() -> None:
    async with (
        shown() as fleet,
        browsing(fleet.balancer.balancer.origin.url) as tab,
    ):
        await tab.open("fleet", wait=".machine")
        node = fleet.nodes[1]
        node.kept = None
        machine = tab.page.locator(".machine", has_text=node.name)
        await machine.get_by_text("Log", exact=True).click()
        await machine.get_by_text("it runs an older edgeserve").wait_for()


async def test_an_empty_fleet_says_what_to_do_next() -> None:
    async with endpoint() as balancer, browsing(balancer.balancer.origin.url) as tab:
        await tab.open("fleet", wait=".empty")
        text = await tab.page.locator("main").inner_text()
        await tab.open("requests", wait=".empty")

    assert "edgeserve node start" in text
    assert tab.wrong == []

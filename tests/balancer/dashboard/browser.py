"""A headless Chromium before the dashboard, which notes all that must not happen."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("DASHBOARD_CHROMIUM", "")
PICTURES = os.environ.get("DASHBOARD_PICTURES", "")
"""Where pictures for the documents go; none are made without it."""

SECONDS = 30_000.0
"""Milliseconds that the page has for anything."""


@dataclass
class Tab:
    """One page. `wrong` has refused or failed loads, errors, and hosts elsewhere.

    `agrees` are the answers to the questions that it will ask.
    """

    page: Any
    url: str
    wrong: list[str] = field(default_factory=list[str])
    agrees: list[bool] = field(default_factory=list[bool])

    async def open(self, view: str, *, wait: str = "main h1") -> None:
        """Show a view, and wait for it."""
        await self.page.goto(f"{self.url}/#{view}")
        await self.page.locator(wait).first.wait_for()

    async def axe(self) -> list[str]:
        """Return what axe finds, as rule and place."""
        from axe_playwright_python.async_playwright import Axe

        found = await Axe().run(self.page)
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found.response["violations"]
            for node in each["nodes"]
        ]

    async def picture(self, name: str, *parts: str) -> None:
        """Keep a picture for the documents: of all, or from one part to another."""
        if not PICTURES:
            return
        from PIL import Image

        path = Path(PICTURES) / f"{name}.png"
        await self.page.screenshot(path=path, **await self._around(*parts))
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
            few.save(path, optimize=True)

    async def _around(self, *parts: str) -> dict[str, Any]:
        """Return where these parts are on the page, as a screenshot takes it."""
        if not parts:
            return {}
        boxes = [await self.page.locator(each).bounding_box() for each in parts]
        top, end = boxes[0], boxes[-1]
        height = end["y"] + end["height"] - top["y"]
        return {"clip": {**top, "height": height}}


@asynccontextmanager
async def browsing(
    url: str,
    *,
    width: int = 1440,
    scheme: str = "light",
    axe: bool = False,
) -> AsyncGenerator[Tab]:
    """Open a browser. With `axe` its script may run, as the policy forbids."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = await browser.new_context(
            viewport={"width": width, "height": 900 if width > 600 else 844},
            color_scheme=scheme,
            bypass_csp=axe,
        )
        context.set_default_timeout(SECONDS)
        tab = Tab(await context.new_page(), url)
        _listen(tab)
        try:
            yield tab
        finally:
            await browser.close()


def _listen(tab: Tab) -> None:
    """Note what must not happen."""

    def said(message: Any) -> None:
        # A refused key is an answer: Chromium logs the status of every one.
        if message.type == "error" and "status of 40" not in message.text:
            tab.wrong.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((tab.url, "data:", "blob:")):
            tab.wrong.append(f"asks {request.url}")

    def alert(dialog: Any) -> Any:
        if dialog.type == "confirm" and tab.agrees:
            return dialog.accept() if tab.agrees.pop(0) else dialog.dismiss()
        tab.wrong.append(f"says {dialog.message}")
        return dialog.dismiss()

    tab.page.on("console", said)
    tab.page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.page.on("request", asked)
    tab.page.on("dialog", alert)

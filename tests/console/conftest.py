"""A headless Chromium on the console of a running emulator. Without a browser these tests skip and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from nex_async.emulator import Emulator

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--proxy-server=direct://",
)


@pytest.fixture(autouse=True)
def _no_leaks() -> None:
    """The driver of the browser is a process with pipes of its own; that nothing leaks is shown elsewhere."""


@pytest.fixture
def chromium() -> str:
    """The path of a Chromium."""
    pytest.importorskip("playwright", reason="playwright is not installed: run `nox -s console`")
    found = os.environ.get("NEX_ASYNC_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on the path: install one (Debian: apt install chromium) or set NEX_ASYNC_CHROMIUM")
    return found


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser, emulator: Emulator) -> AsyncIterator[Page]:
    """The console, open and live; an error of its script fails the test."""
    page = await browser.new_page(viewport={"width": 1360, "height": 860})
    page.set_default_timeout(10_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    await page.goto(emulator.url.replace("/api/developers", "/_emulator/"))
    await page.wait_for_selector(".live")
    yield page
    expected = [text for text in errors if "the server responded with a status of 400" not in text]
    assert not expected, expected
    await page.close()


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as server:
        yield server

"""The console as a developer sees it, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from nex_async.emulator import Emulator

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

TEXT = "Ada Park <ada@techflow.io> is unhappy and may churn."


async def call(emulator: Emulator, method: str, path: str, body: Any = None) -> Any:
    """Do what the program under development does: call the API."""
    headers = {"Authorization": f"Bearer {emulator.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, emulator.url + path, json=body) as response,
    ):
        return await response.json() if response.content_type == "application/json" else await response.read()


async def texts(page: Page, selector: str) -> list[str]:
    return await page.locator(selector).all_inner_texts()


async def test_an_ingested_text_shows_at_once(page: Page, emulator: Emulator, tmp_path: Path) -> None:
    """The insight of a text that a program ingests appears in the open page, without a reload, and so do its records."""
    await page.evaluate("window.stays = true")
    assert await page.locator("#feed li").count() == 0
    await call(emulator, "POST", "/v1/context/text", {"content": TEXT})
    await page.get_by_text(TEXT).wait_for()
    assert (await texts(page, "#feed .kind")) == ["risk"]
    await page.locator("#rows").get_by_text("ada@techflow.io").wait_for()
    assert await page.evaluate("window.stays") is True
    picture = await page.screenshot(path=tmp_path / "console.png")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


async def test_a_text_can_be_taken_in_by_hand(page: Page) -> None:
    """The form ingests by keyboard alone, empties itself and says what became of the text."""
    await page.locator("#content").focus()
    await page.keyboard.type(TEXT)
    await page.keyboard.press("Control+Enter")
    await page.locator("#feed li").get_by_text(TEXT).wait_for()
    await page.locator("#ingest-outcome").get_by_text("taken in").wait_for()
    assert await page.locator("#content").input_value() == ""


async def test_records_of_an_object_can_be_chosen(page: Page, emulator: Emulator) -> None:
    """The objects show their counts, and the chosen one its records, by keyboard too."""
    await call(emulator, "POST", "/v1/objects/company", {"attributes": {"name": "Alder", "domains": ["alder.io"]}})
    companies = page.get_by_role("button", name="Companies")
    await companies.get_by_text("1").wait_for()
    await companies.focus()
    await page.keyboard.press("Enter")
    await page.locator("#rows").get_by_text("alder.io").wait_for()
    assert await companies.get_attribute("aria-pressed") == "true"


async def test_requests_show_as_they_come(page: Page, emulator: Emulator) -> None:
    """Each call of the API is a row with its status, newest first; the filter narrows the rows, and Clear empties them."""
    await call(emulator, "GET", "/v1/tasks")
    await call(emulator, "GET", "/v1/tasks/17")
    await page.locator("#requests tr").nth(1).wait_for()
    rows = await texts(page, "#requests tr")
    assert "/v1/tasks/17" in rows[0]
    assert "404" in rows[0]
    assert "200" in rows[1]
    await page.locator("#filter").fill("404")
    assert await page.locator("#requests tr:visible").count() == 1
    await page.locator("#filter").fill("")
    await page.locator("#clear-log").click()
    await page.locator("#no-requests").wait_for()
    assert len(emulator.requests) == 0


async def test_a_fault_can_be_added_and_taken_back(page: Page, emulator: Emulator) -> None:
    """A fault of the form strikes the next call, shows in the log, and can be removed; one that cannot be is explained."""
    await page.locator("#kind").select_option("status")
    await page.locator("#route").select_option("listTasks")
    await page.locator("#more").fill('{"status": 503}')
    await page.locator("#times").fill("")
    await page.get_by_role("button", name="Add fault").click()
    await page.locator("#faults li").wait_for()
    assert (await call(emulator, "GET", "/v1/tasks"))["code"] == 503
    await page.locator("#requests .warn").get_by_text("status").wait_for()
    await page.locator("#faults").get_by_text("struck 1").wait_for()
    await page.get_by_role("button", name="Remove fault status").click()
    await page.locator("#faults li").wait_for(state="detached")
    assert (await call(emulator, "GET", "/v1/tasks"))["total"] == 0
    await page.locator("#more").fill('{"colour": 1}')
    await page.get_by_role("button", name="Add fault").click()
    await page.locator("#fault-outcome").get_by_text("colour").wait_for()


async def test_a_switch_can_be_turned(page: Page, emulator: Emulator) -> None:
    """A switch of the board holds for every later call, keeps the focus, and goes back with Reset."""
    await page.locator("select[name=insights_rest]").select_option("enriched")
    await page.locator("#switch-outcome").get_by_text("insights_rest is now enriched").wait_for()
    assert "workspace" in await call(emulator, "GET", "/v1/insights")
    assert await page.evaluate("document.activeElement.name") == "insights_rest"
    await page.locator("#reset-switches").click()
    await page.locator("#switch-outcome").get_by_text("as the server was started").wait_for()
    assert emulator.switches["insights_rest"] == "simple"


async def test_what_anybody_wrote_is_text(page: Page, emulator: Emulator) -> None:
    """Markup in a record, a text, a path or a fault is shown as it is written and never carried out."""
    attack = "<img src=x onerror=window.hurt=1>"
    await call(emulator, "POST", "/v1/objects/person", {"attributes": {"name": attack, "job_title": attack}})
    await call(emulator, "POST", "/v1/objects", {"name": attack, "slug": "attack"})
    await call(emulator, "POST", "/v1/context/text", {"content": f"ada@x.io is unhappy {attack}."})
    await call(emulator, "GET", f"/v1/tasks?search={attack}")
    await page.locator("#feed").get_by_text(attack).wait_for()
    await page.locator("#rows").get_by_text(attack).first.wait_for()
    await page.locator("#objects").get_by_text(attack).wait_for()
    assert await page.locator("img").count() == 0
    assert await page.evaluate("window.hurt") is None


async def test_the_page_comes_back_after_a_restart(page: Page, emulator: Emulator) -> None:
    """When the emulator restarts, the page says so, finds it again by itself and shows what there is."""
    await call(emulator, "POST", "/v1/context/text", {"content": TEXT})
    await page.get_by_text(TEXT).wait_for()
    await emulator.restart()
    await page.wait_for_selector(".live")
    await call(emulator, "POST", "/v1/context/text", {"content": "Bo <bo@birch.dev> signed."})
    await page.get_by_text("Bo <bo@birch.dev> signed.").wait_for()
    assert await page.locator("#feed li").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 420])
async def test_nothing_sticks_out(browser: Browser, emulator: Emulator, scheme: Any, width: int) -> None:
    """In light and dark, wide and narrow, the page fits its width and its text stands out from its ground."""
    await call(emulator, "POST", "/v1/context/text", {"content": TEXT + " " + "long" * 60 + "."})
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    await page.goto(emulator.url.replace("/api/developers", "/_emulator/"))
    await page.wait_for_selector("#feed li")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in ("body", "header p", "th", ".feed small", "#requests .good", "button.strong"):
        assert await page.evaluate(_CONTRAST, selector) >= 4.5, selector
    await page.close()


async def test_the_graph_page_draws(browser: Browser, emulator: Emulator) -> None:
    """The page of the graph lists its records and paints them, with no error of its script."""
    await call(emulator, "POST", "/v1/context/text", {"content": TEXT})
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.set_content((await call(emulator, "GET", "/v1/graph?format=html")).decode())
    await page.get_by_role("button", name="Ada Park").click()
    assert await page.locator("#title").inner_text() == "Ada Park"
    assert await page.evaluate(_PAINTED) > 100
    assert not errors


_CONTRAST = """(selector) => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
    });
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const element = document.querySelector(selector);
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""

_PAINTED = """() => {
  const canvas = document.getElementById("view");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length;
}"""

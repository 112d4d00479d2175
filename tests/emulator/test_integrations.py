"""Integrations: from a connect token over its approval to a connection, and back."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from .conftest import Api, Clock


async def start(api: Api, pair: str = "email/google") -> Any:
    return await api("POST", f"/v1/integrations/{pair}/connect")


async def status(api: Api, token: str, *, status: int = 200) -> Any:
    return await bare(api, "GET", f"{api.url}/v1/integrations/connect/{quote(token, safe='')}/status", status=status)


async def approve(api: Api, token: str, body: Any = None, *, status: int = 200) -> Any:
    place = api.url.replace("/api/developers", "/_emulator/connect/") + quote(token, safe="")
    return await bare(api, "POST", place, body, status=status)


async def bare(api: Api, method: str, url: str, body: Any = None, *, status: int) -> Any:
    """Send a request whose path is encoded already: a token holds slashes."""
    headers = {"Authorization": f"Bearer {api.key}"}
    async with api.session.request(method, URL(url, encoded=True), json=body, headers=headers) as response:
        reply = await response.json()
        assert response.status == status, reply
        return reply


async def connections(api: Api) -> dict[str, list[Any]]:
    listed = await api("GET", "/v1/integrations")
    return {f"{each['type']}/{each['provider']}": each["connections"] for each in listed if each["connections"]}


async def test_every_service_is_listed(api: Api) -> None:
    """The listing is a bare array of the documented pairs, with and without a trailing slash."""
    listed = await api("GET", "/v1/integrations")
    assert {(each["type"], each["provider"]) for each in listed} == {
        *((kind, provider) for kind in ("email", "calendar") for provider in ("google", "microsoft")),
        ("messaging", "slack"),
        *(("crm", provider) for provider in ("attio", "hubspot", "salesforce")),
    }
    assert all(each["display_name"] and each["description"] and each["connections"] == [] for each in listed)
    assert await api("GET", "/v1/integrations/") == listed


async def test_a_token_needs_quoting(api: Api) -> None:
    """A connect_id starts with eyJ and holds `+`, `/` and `=`, so that a client that does not quote it fails."""
    token = (await start(api))["connect_id"]
    assert token.startswith("eyJ")
    assert {"+", "/", "="} < set(token)
    assert token != (await start(api))["connect_id"]


async def test_a_connection_is_made_by_approval(api: Api) -> None:
    """A connect is pending until it is approved, and then connected under an integer id beyond 2**53."""
    started = await start(api)
    assert await status(api, started["connect_id"]) == {"status": "pending"}
    assert await connections(api) == {}
    done = await approve(api, started["connect_id"], {"identifier": "ada@x.io"})
    assert done["status"] == "connected"
    assert type(done["connection_id"]) is int
    assert done["connection_id"] > 2**53
    assert await status(api, started["connect_id"]) == done
    connection = {"id": done["connection_id"], "status": "active", "identifier": "ada@x.io"}
    assert await connections(api) == {"email/google": [connection]}


async def test_an_account_keeps_its_connection(api: Api) -> None:
    """To authorise an account again gives its id again; another account or service gets one of its own."""
    first = await approve(api, (await start(api))["connect_id"])
    again = await approve(api, (await start(api))["connect_id"])
    assert first == again
    other = await approve(api, (await start(api))["connect_id"], {"identifier": "bo@x.io"})
    third = await approve(api, (await start(api, "calendar/google"))["connect_id"])
    assert len({each["connection_id"] for each in (first, other, third)}) == 3


async def test_an_approval_happens_once(api: Api) -> None:
    """A second approval of one token changes nothing, whatever account it names."""
    token = (await start(api))["connect_id"]
    done = await approve(api, token)
    assert await approve(api, token, {"identifier": "bo@x.io"}) == done
    assert [each["identifier"] for each in (await connections(api))["email/google"]] == ["developer@google.example"]


async def test_a_token_lives_ten_minutes(api: Api, clock: Clock) -> None:
    """After ten minutes a token is 410, for its status and for its approval."""
    token = (await start(api))["connect_id"]
    clock.now += 600
    assert (await status(api, token))["status"] == "pending"
    clock.now += 1
    assert (await status(api, token, status=410))["code"] == 410
    assert (await approve(api, token, status=410))["code"] == 410
    assert await connections(api) == {}


@pytest.mark.parametrize(
    "pair", ["email/slack", "messaging/google", "crm/google", "sms/x", "email/%2F", "messaging/whatsapp"]
)
async def test_a_pair_that_does_not_exist_is_refused(api: Api, pair: str) -> None:
    """A pair of type and provider that is not documented is a 400 that names those that are."""
    await api.refused("POST", f"/v1/integrations/{pair}/connect", None, "email/google")


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"not json"])
async def test_a_connect_takes_any_body(api: Api, data: bytes) -> None:
    """Connect has no body: whatever comes is left unread."""
    assert (await api("POST", "/v1/integrations/crm/attio/connect", data=data))["connect_id"]


async def test_a_token_nobody_issued_is_refused(api: Api) -> None:
    """An unknown token is a 400, as the operation declares no 404."""
    for token in ("eyJ", "x", "%00", "17"):
        await status(api, token, status=400)
        await approve(api, token, status=400)


async def test_a_connection_goes(api: Api) -> None:
    """A disconnect answers nothing and takes the connection away; once more it is 404, and an id must be an integer."""
    number = (await approve(api, (await start(api))["connect_id"]))["connection_id"]
    assert await api("DELETE", f"/v1/integrations/connections/{number}") is None
    assert await connections(api) == {}
    await api("DELETE", f"/v1/integrations/connections/{number}", status=404)
    await api.refused("DELETE", "/v1/integrations/connections/x", None, "connection_id")


async def test_the_account_must_be_named_sensibly(api: Api) -> None:
    """An empty, huge or mistyped identifier is named in a 400, and the token stays pending."""
    token = (await start(api))["connect_id"]
    for identifier in ("", " ", "x" * 201, 7, ["a"]):
        reply = await approve(api, token, {"identifier": identifier}, status=400)
        assert "identifier" in reply["message"]
    assert (await status(api, token))["status"] == "pending"


async def test_a_person_can_approve_in_a_browser(api: Api) -> None:
    """The auth_url is a page of the emulator with a form; sending it connects, and the page says so."""
    started = await start(api, "messaging/slack")
    url = URL(started["auth_url"], encoded=True)
    async with api.session.get(url) as response:
        page = await response.text()
        assert response.content_type == "text/html"
        assert "Connect Slack" in page
        assert "<form" in page
    async with api.session.post(url, data={"identifier": "<b>team</b>"}) as response:
        page = await response.text()
        assert "Slack is connected" in page
        assert "<form" not in page
    assert (await connections(api))["messaging/slack"][0]["identifier"] == "<b>team</b>"


async def test_a_browser_is_told_what_is_wrong(api: Api, clock: Clock) -> None:
    """An unknown or expired token gives a page with the reason, with nothing of the token as markup."""
    place = api.url.replace("/api/developers", "/_emulator/connect/")
    started = await start(api)
    clock.now += 601
    for url, code in ((started["auth_url"], 410), (place + "%3Cscript%3E", 400)):
        for method in ("GET", "POST"):
            form = {"identifier": "x"} if method == "POST" else None
            async with api.session.request(method, URL(url, encoded=True), data=form) as response:
                assert response.status == code
                assert "<script>" not in await response.text()

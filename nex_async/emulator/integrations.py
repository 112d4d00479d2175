"""Integrations: the services that can be connected, and the way from a connect token to a connection.

A token lives ten minutes by the clock. Its `auth_url` leads to a page of the emulator where a developer approves it, which
a test does with `POST /_emulator/connect/{connect_id}`; nothing is connected until then.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any
from urllib.parse import quote

from nex_async.emulator.call import ApiError, Call, bad_request, not_found
from nex_async.emulator.store import Store, to_json
from nex_async.emulator.timestamps import MICROSECONDS

__all__ = ["approve", "connect", "describe", "disconnect", "get_connect_status", "list_integrations"]

_LIFETIME = 600 * MICROSECONDS
_LONGEST_IDENTIFIER = 200

_SERVICES: dict[tuple[str, str], tuple[str, str]] = {
    ("email", "google"): ("Gmail", "Reads mail and learns from conversations."),
    ("email", "microsoft"): ("Outlook", "Reads mail and learns from conversations."),
    ("calendar", "google"): ("Google Calendar", "Reads meetings and who attends them."),
    ("calendar", "microsoft"): ("Outlook Calendar", "Reads meetings and who attends them."),
    ("messaging", "slack"): ("Slack", "Reads channels and delivers alerts."),
    ("crm", "attio"): ("Attio", "Keeps people and companies in step with Attio."),
    ("crm", "hubspot"): ("HubSpot", "Keeps people and companies in step with HubSpot."),
    ("crm", "salesforce"): ("Salesforce", "Keeps people and companies in step with Salesforce."),
}


def list_integrations(store: Store, call: Call) -> str:
    """`GET /v1/integrations`: a bare array of every service, with its connections oldest first."""
    connections: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = store.rows("SELECT id, type, provider, identifier FROM connections ORDER BY id")
    for number, kind, provider, identifier in rows:
        row = {"id": number, "status": "active", "identifier": identifier}
        connections.setdefault((kind, provider), []).append(row)
    return to_json([_render(pair, connections.get(pair, [])) for pair in _SERVICES])


def _render(pair: tuple[str, str], connections: list[dict[str, Any]]) -> dict[str, Any]:
    (kind, provider), (name, description) = pair, _SERVICES[pair]
    return {
        "type": kind,
        "provider": provider,
        "display_name": name,
        "description": description,
        "connections": connections,
    }


def connect(store: Store, call: Call) -> str:
    """`POST /v1/integrations/{type}/{provider}/connect`: whatever the body holds, a token and where to approve it."""
    pair = call.path["type"], call.path["provider"]
    if pair not in _SERVICES:
        known = ", ".join("/".join(each) for each in _SERVICES)
        raise bad_request(f"no such integration: {'/'.join(pair)[:100]}; there are {known}")
    token = _new_token()
    store.write("INSERT INTO connects VALUES (?, ?, ?, ?, NULL)", token, *pair, store.now())
    return to_json({"auth_url": f"{store.origin}/_emulator/connect/{quote(token, safe='')}", "connect_id": token})


def _new_token() -> str:
    """Return a token that holds `+`, `/` and `=`, so that a client that does not quote it fails at once."""
    return base64.b64encode(b'{"v": 1}\n\xfb\xff\xbf' + secrets.token_bytes(16)).decode()


def get_connect_status(store: Store, call: Call) -> str:
    """`GET /v1/integrations/connect/{connect_id}/status`: pending, connected, or 410 after ten minutes."""
    connection_id = _find(store, call.path["connect_id"])[2]
    if connection_id is None:
        return to_json({"status": "pending"})
    return to_json({"status": "connected", "connection_id": connection_id})


def describe(store: Store, token: str) -> tuple[str, bool, str]:
    """Return the name of the service a token is for, whether it is connected, and the account an approval would connect.

    Raises as `approve` does.
    """
    kind, provider, connection_id = _find(store, token)
    return _SERVICES[kind, provider][0], connection_id is not None, _default_identifier(provider)


def _default_identifier(provider: str) -> str:
    return f"developer@{provider}.example"


def approve(store: Store, token: str, identifier: str | None = None) -> dict[str, Any]:
    """Do what a person does at `auth_url`: connect the account `identifier`, once.

    An account that is connected already keeps its id. Raises 400 for a token never issued, 410 for one too old.
    """
    kind, provider, connection_id = _find(store, token)
    name = _default_identifier(provider) if identifier is None else identifier.strip()
    if not 1 <= len(name) <= _LONGEST_IDENTIFIER:
        raise bad_request(f"identifier must have 1 to {_LONGEST_IDENTIFIER} characters")
    if connection_id is None:
        connection_id = _connection(store, kind, provider, name)
        store.write("UPDATE connects SET connection_id = ? WHERE token = ?", connection_id, token)
    return {"status": "connected", "connection_id": connection_id}


def _connection(store: Store, kind: str, provider: str, identifier: str) -> int:
    found = store.row(
        "SELECT id FROM connections WHERE type = ? AND provider = ? AND identifier = ?", kind, provider, identifier
    )
    if found is not None:
        return int(found[0])
    number = store.new_id()
    store.write("INSERT INTO connections VALUES (?, ?, ?, ?, ?)", number, kind, provider, identifier, store.now())
    return number


def _find(store: Store, token: str) -> tuple[str, str, int | None]:
    """Return the type, the provider and the connection of a token."""
    row = store.row("SELECT type, provider, connection_id, created_at FROM connects WHERE token = ?", token)
    if row is None:
        raise bad_request("connect_id is not one this API has issued")
    if store.now() - row[3] > _LIFETIME:
        raise ApiError(410, "connect_id has expired: it lives 10 minutes")
    return row[0], row[1], row[2]


def disconnect(store: Store, call: Call) -> str:
    """`DELETE /v1/integrations/connections/{connection_id}`."""
    number = call.integer_id("connection_id")
    if not store.write("DELETE FROM connections WHERE id = ?", number):
        raise not_found("connection", str(number))
    return ""

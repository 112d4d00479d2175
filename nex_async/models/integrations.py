"""Integrations: which services can be connected, and which are."""

from __future__ import annotations

from msgspec import field

from .base import Model

__all__ = ["ConnectStarted", "ConnectStatus", "Connection", "Integration"]


class Connection(Model):
    """A connected account; `identifier` is its name or address."""

    id: str
    status: str | None = None
    identifier: str | None = None


class Integration(Model):
    """A service that can be connected, and the accounts that are. `type` and `provider` are open strings."""

    type: str | None = None
    provider: str | None = None
    display_name: str | None = None
    description: str | None = None
    connections: list[Connection] = field(default_factory=list)


class ConnectStarted(Model):
    """Where a person approves the connection (`auth_url`, untrusted, opened by you), and the token to poll with."""

    auth_url: str | None = None
    connect_id: str | None = None


class ConnectStatus(Model):
    """How far a connection is: `pending`, then `connected` with its `connection_id`."""

    status: str | None = None
    connection_id: str | None = None
    error: str | None = None

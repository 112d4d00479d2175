"""What an aiohttp failure means: each of its exceptions as one of ours, with whether anything was sent.

The aiohttp exception never leaves with ours: its request info holds the headers, and its text may hold the peer's bytes.
"""

from __future__ import annotations

import asyncio
import os
import traceback

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ..errors import (
    BodyTruncated,
    ClientClosed,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DNSError,
    NexError,
    Phase,
    ProtocolError,
    ProxyError,
    Timeout,
    TLSError,
)

__all__ = ["AIOHTTP_FAILURES", "failure_of"]

AIOHTTP_FAILURES = (aiohttp.ClientError, HttpProcessingError, asyncio.TimeoutError, OSError)


def failure_of(error: BaseException, phase: Phase, waiting_for_pool: bool) -> NexError:
    """Return our error for one of `AIOHTTP_FAILURES`; `phase` is how far the attempt had come."""
    if isinstance(error, asyncio.TimeoutError):
        return _timeout(error, phase, waiting_for_pool)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connector(error)
    if isinstance(error, aiohttp.ClientSSLError):
        return TLSError("the TLS handshake failed", sent="no")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ProxyError(f"the proxy refused the tunnel with status {error.status}", sent="no")
    if _while_connecting(error):
        return _unconnected(error)
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        return ProtocolError("the reply is not valid HTTP", sent="maybe")
    if isinstance(error, aiohttp.ClientPayloadError):
        return _payload(error)
    if isinstance(error, aiohttp.ClientConnectionError) and "closed" in str(error).lower() and not error.__cause__:
        return _closed_or_lost(error)
    if isinstance(error, aiohttp.InvalidURL):
        return ConnectError("the base URL cannot be connected to", sent="no")
    return ConnectionLost(f"the connection broke while waiting for the {phase}", sent="maybe")


def _while_connecting(error: BaseException) -> bool:
    """Return whether the failure came out of the connector: the request is sent only after it."""
    connect = aiohttp.BaseConnector.connect.__code__
    return any(frame.f_code is connect for frame, _ in traceback.walk_tb(error.__traceback__))


def _unconnected(error: BaseException) -> NexError:
    if "closed" in str(error).lower() and "connector" in str(error).lower():
        return ClientClosed("the client was closed during the call")
    # A direct connection fails as a ClientConnectorError; what is left is a proxy that broke off.
    return ProxyError("the proxy broke off before the tunnel stood", sent="no")


def _closed_or_lost(error: BaseException) -> NexError:
    if "connector" in str(error).lower() or "session" in str(error).lower():
        return ClientClosed("the client was closed during the call")
    return ConnectionLost("the connection was closed before the reply", sent="maybe")


def _timeout(error: BaseException, phase: Phase, waiting_for_pool: bool) -> NexError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        if waiting_for_pool:
            return Timeout("no connection of the pool became free in time", sent="no", phase="pool")
        return Timeout("no connection could be made in time", sent="no", phase="connect")
    if isinstance(error, aiohttp.SocketTimeoutError):
        return Timeout(f"the server fell silent while its {phase} were due", sent="maybe", phase=phase)
    return DeadlineExceeded(f"the call's deadline passed while waiting for the {phase}", sent="maybe")


def _connector(error: aiohttp.ClientConnectorError) -> NexError:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return DNSError("the host's name could not be resolved", sent="no")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return TLSError("the server's certificate was not accepted", sent="no", certificate=True)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return TLSError("the TLS handshake failed", sent="no")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return ProxyError("the proxy could not be reached", sent="no")
    code = error.os_error.errno
    reason = os.strerror(code) if isinstance(code, int) and code > 0 else "the connection could not be made"
    return ConnectError(f"no connection: {reason}", sent="no")


def _payload(error: aiohttp.ClientPayloadError) -> NexError:
    # aiohttp says "not completed" when the connection ended before the body did, and nothing of the sort when the
    # framing itself is wrong.
    text = str(error)
    if "not completed" in text or "Not enough data" in text or "ContentLengthError" in text:
        return BodyTruncated("the reply's body ended early", sent="maybe")
    return ProtocolError("the reply's body is framed wrongly", sent="maybe")

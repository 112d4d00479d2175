"""Where settings come from: arguments, `NEX_*` variables, the files of `~/.nex`; and the Secret that never prints."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import msgspec

from .errors import ConfigError

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_ORIGIN", "PREFIX", "Secret", "Timeouts", "normalise_base_url", "resolve"]

DEFAULT_ORIGIN = "https://app.nex.ai"
PREFIX = "/api/developers"
DEFAULT_BASE_URL = DEFAULT_ORIGIN + PREFIX

# The user decides what becomes of our records: without this, the standard library would print the worse of them.
logging.getLogger("nex_async").addHandler(logging.NullHandler())
_log = logging.getLogger("nex_async.config")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,252})\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._~\-]+\Z")
_WORKSPACE = re.compile(r"[A-Za-z0-9_\-]{1,128}\Z")


class MaskedStr(str):
    """A string that goes over the wire as it is and prints as a mask, also inside a header map or a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[redacted]'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a header that holds an API key cannot be pickled")


def masked(value: Any) -> Any:
    """Return a text as one that prints as a mask, anything else as it is: for the locals of our own frames."""
    return MaskedStr(value) if isinstance(value, str) else value


class Secret:
    """An API key. Never prints, formats, compares by text, pickles or copies itself; `.reveal()` is the one way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str | Secret) -> None:
        self._value: str = MaskedStr()
        if isinstance(value, Secret):
            self._value = value._value
            return
        if not isinstance(value, str):
            raise ConfigError(f"api_key must be a string, not {type(value).__name__}")
        value = MaskedStr(value)
        stripped = MaskedStr(value.strip())
        if not stripped:
            raise ConfigError("api_key is empty: pass api_key=, or set NEX_API_KEY")
        if stripped != value:
            warnings.warn("api_key has leading or trailing white space, which was removed", UserWarning, stacklevel=3)
        if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
            raise ConfigError("api_key holds a control, space or non-ASCII character")
        if not stripped.startswith(("sk-", "nex_dev_")):
            warnings.warn("api_key does not start with 'sk-'; is it a Nex key?", UserWarning, stacklevel=3)
        self._value = stripped

    def reveal(self) -> str:
        """Return the key itself, as a string that still prints as a mask."""
        return self._value

    def authorization(self) -> str:
        """Return the value of the Authorization header, as a string that prints as a mask."""
        return MaskedStr(f"Bearer {str.__str__(self._value)}")

    def __repr__(self) -> str:
        length = len(self._value)
        tail = self._value[-4:] if length >= 12 else ""
        return f"Secret('****{tail}', {length} characters)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and str.__eq__(self._value, other._value)

    def __hash__(self) -> int:
        return hash(str.__str__(self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key cannot be pickled or copied; pass it again where it is needed")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds. None takes the operation's own default.

    `total` bounds the whole call with every retry and wait (60; 300 for AI operations); `connect` one connection (5);
    `read` silence of the server while a reply is due (30; 120 for AI); `pool` the wait for a free connection, beyond
    `connect` (the remaining total).
    """

    total: float | None = None
    connect: float = 5.0
    read: float | None = None
    pool: float | None = None

    def __post_init__(self) -> None:
        for name in ("total", "connect", "read", "pool"):
            value: object = getattr(self, name)
            if value is None and name != "connect":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
                raise ConfigError(f"timeouts.{name} must be a positive number of seconds, not {value!r}")


def is_loopback(host: str) -> bool:
    """Return whether `host` can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def normalise_base_url(value: str, argument: str = "base_url") -> str:
    """Return `scheme://host[:port]/api/developers` for an origin, a full base URL, or one that ends in `/v1`.

    Raises `ConfigError` for anything else: user info, query, fragment, dot segments, a strange host, port 0, or plain
    http to a host that is not loopback.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{argument} must be a string, not {type(value).__name__}")
    text = value.strip()
    if not text or not text.isascii() or not text.isprintable() or "\\" in text or " " in text:
        raise ConfigError(f"{argument} must be a plain ASCII URL such as {DEFAULT_ORIGIN}")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise ConfigError(f"{argument} is not a URL: its host or port cannot be read") from None
    _check_authority(argument, parts.scheme, parts.netloc, host, port)
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ConfigError(f"{argument} must not hold a query or a fragment")
    origin = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    return origin + _normalise_path(argument, parts.path)


def _check_authority(argument: str, scheme: str, netloc: str, host: str, port: int | None) -> None:
    if scheme not in ("https", "http"):
        raise ConfigError(f"{argument} must start with https:// (or http:// for loopback)")
    if "@" in netloc:
        raise ConfigError(f"{argument} must not hold user information")
    if port == 0 or netloc.endswith(":"):
        raise ConfigError(f"{argument} has no usable port")
    if not (_HOST.match(host) and ".." not in host and "[" not in netloc) and not _is_address(host):
        raise ConfigError(f"{argument} has no usable host")
    if any(label.startswith("xn--") for label in host.split(".")):
        raise ConfigError(f"{argument} has an internationalised host name; the API has none")
    if scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{argument} uses plain http to a host that is not loopback; use https")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _normalise_path(argument: str, path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") or not _SEGMENT.match(segment) for segment in segments):
        raise ConfigError(f"{argument} has a path that could leave its place")
    while segments and segments[-1] == "v1":
        segments.pop()
    return "/" + "/".join(segments) if segments else PREFIX


class _Credentials(msgspec.Struct):
    """What any of the `~/.nex` files may hold that a client needs; everything else in them is left alone."""

    api_key: str | None = None
    base_url: str | None = None
    dev_url: str | None = None
    active_workspace: str | None = None

    def __repr__(self) -> str:
        return "<credentials>"


def _read(path: Path) -> _Credentials | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = msgspec.json.decode(content, type=_Credentials)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = b""  # no traceback of ours shows it
        raise ConfigError(f"{path} is not a JSON file of credentials") from None
    says_where = bool(found.api_key or found.base_url or found.dev_url)
    if says_where and os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        content, found = b"", _Credentials()  # no traceback of ours shows them
        raise ConfigError(f"{path} says where a key goes, and others can write it; run: chmod 600 {path}")
    if found.api_key and os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.warn(f"{path} holds an API key and is readable by others; run: chmod 600 {path}", UserWarning, 4)
    return found


def _variable(environ: Mapping[str, str] | None, name: str) -> str | None:
    return (os.environ if environ is None else environ).get(name)


class Found(NamedTuple):
    """A key, where it came from in words a person understands, and the base URL that stands beside it."""

    key: Secret
    source: str
    base_url: str | None = None


def base_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of the files: `NEX_BASE_DIR`, else `~/.nex`."""
    return Path(_variable(environ, "NEX_BASE_DIR") or _home(environ) / ".nex")


def login_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that `nex-async auth login` writes; no other program touches it."""
    return base_directory(environ) / "nex-async" / "credentials.json"


def _home(environ: Mapping[str, str] | None) -> Path:
    return Path(_variable(environ, "HOME") or Path.home())


def _files(environ: Mapping[str, str] | None) -> Found | None:
    """Return the key of the login file, else of the active workspace, the flat file or the retired file."""
    base = base_directory(environ)
    config = base / "config.json"
    settings = _read(config) or _Credentials()
    paths = [login_file(environ)]
    workspace = settings.active_workspace
    if workspace and _WORKSPACE.match(workspace):
        paths.append(base / "workspaces" / workspace / "credentials.json")
    read = [(path, _read(path)) for path in paths] + [(config, settings)]
    if not any(held is not None and held.api_key for _, held in read):
        retired = _home(environ) / ".nex-mcp.json"
        read.append((retired, _read(retired)))
    found = [(path, held) for path, held in read if held is not None]
    for path, held in found:
        if held.api_key:
            # A login names its own server; the other files share theirs.
            beside = [held] if path == paths[0] else [each for _, each in found]
            url = next((each.dev_url or each.base_url for each in beside if each.dev_url or each.base_url), None)
            return Found(Secret(masked(held.api_key)), str(path), url)
    return None


def find_key(environ: Mapping[str, str] | None = None) -> Found | None:
    """Return the key of the environment or the files, None where there is none. Raises `ConfigError` for an unusable one."""
    variable = masked(_variable(environ, "NEX_API_KEY"))
    return _files(environ) if variable is None else Found(Secret(variable), "NEX_API_KEY")


def resolve(
    api_key: str | Secret | None, base_url: str | None, environ: Mapping[str, str] | None = None
) -> tuple[Secret, str]:
    """Return the key and the normalised base URL a client uses.

    Key: argument, `NEX_API_KEY`, files. Base URL: argument, `NEX_DEV_URL`, `NEX_API_BASE_URL`, and, only when the key
    came from the files too, the files; else production. Raises `ConfigError` when there is no key.
    """
    # Tracebacks can be made to show the locals of every frame: neither the key nor the environment is one of them.
    api_key = masked(api_key)
    if api_key is not None:
        found: Found | None = Found(Secret(api_key), "the argument api_key")
    else:
        found = find_key(environ)
    if found is None:
        raise ConfigError("no API key: pass api_key=, set NEX_API_KEY, or use Nex.local() for the embedded Nex")
    secret = found.key
    url = base_url
    if url is None:
        url = _variable(environ, "NEX_DEV_URL") or _variable(environ, "NEX_API_BASE_URL") or found.base_url
    normalised = normalise_base_url(DEFAULT_BASE_URL if url is None else url)
    host = urlsplit(normalised).hostname or ""
    if base_url is None and url and not is_loopback(host) and host != urlsplit(DEFAULT_ORIGIN).hostname:
        _log.warning("base URL from the environment or a file: calls and the key go to %s", host, extra={"nex_host": host})
    return secret, normalised

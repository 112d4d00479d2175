"""Where the command keeps its key: the system's keyring where `keyring` is installed and works, else a file of its own."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import msgspec

from ..config import DEFAULT_BASE_URL, Found, Secret, find_key, login_file, masked, normalise_base_url

__all__ = ["base_url_of", "find", "forget", "keep_in_file", "keep_in_keyring"]

_SERVICE, _NAME = "nex-async", "login"


class _Login(msgspec.Struct):
    """What a login is, as it is kept."""

    api_key: str
    base_url: str

    def __repr__(self) -> str:
        return f"<login at {self.base_url}>"


def find() -> Found | None:
    """Return the key a command uses: `NEX_API_KEY`, the keyring, the files. Raises `ConfigError` for an unusable one."""
    if os.environ.get("NEX_API_KEY") is not None:
        return find_key()
    return _in_keyring() or find_key()


def base_url_of(found: Found) -> str:
    """Return where calls with a key go. Raises `ConfigError`."""
    variable = os.environ.get("NEX_DEV_URL") or os.environ.get("NEX_API_BASE_URL")
    return normalise_base_url(variable or found.base_url or DEFAULT_BASE_URL)


def _keyring() -> Any:
    """Return the keyring, None where there is none that keeps secrets."""
    if importlib.util.find_spec("keyring") is None:
        return None
    keyring: Any = importlib.import_module("keyring")
    return keyring if getattr(keyring.get_keyring(), "priority", 0) >= 1 else None


def _in_keyring() -> Found | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        held = masked(keyring.get_password(_SERVICE, _NAME))
        login = msgspec.json.decode(str.__str__(held), type=_Login) if held else None
    except (msgspec.DecodeError, keyring.errors.KeyringError):
        return None
    return None if login is None else Found(Secret(masked(login.api_key)), "the system's keyring", login.base_url)


def _document(key: Secret, base_url: str) -> bytes:
    return msgspec.json.encode(_Login(str.__str__(key.reveal()), base_url))


def keep_in_keyring(key: Secret, base_url: str) -> bool:
    """Keep a key in the system's keyring, and no longer in the file; return whether there is a keyring that took it."""
    keyring = _keyring()
    if keyring is None:
        return False
    try:
        keyring.set_password(_SERVICE, _NAME, masked(_document(key, base_url).decode()))
    except keyring.errors.KeyringError:
        return False
    login_file().unlink(missing_ok=True)
    return True


def keep_in_file(key: Secret, base_url: str) -> Path:
    """Keep a key in a file that only its owner can read, and return its path. It is whole or not there."""
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_document(key, base_url))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return path


def forget() -> list[str]:
    """Remove the key that a login has kept, and return where from."""
    gone = []
    keyring = _keyring()
    if keyring is not None and _in_keyring() is not None:
        keyring.delete_password(_SERVICE, _NAME)
        gone.append("the system's keyring")
    if login_file().exists():
        login_file().unlink()
        gone.append(str(login_file()))
    return gone

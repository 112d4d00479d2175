"""Logging in, out, and looking at which key is in use; and the doctor, who looks at everything."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nex_async import ConfigError, Nex
from nex_async.cli.credentials import _keyring, forget, keep_in_file
from nex_async.config import Secret, login_file, resolve
from nex_async.emulator import Emulator

from ..harness.canary import KEY, leaked
from .running import at, lines, run

_KEYRING = _keyring


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nex_async.cli.credentials._keyring", lambda: None)


class Keyring(ModuleType):
    """A keyring in memory, as the package presents one."""

    class errors:  # the package's own name
        class KeyringError(Exception):
            pass

    def __init__(self, priority: int = 5) -> None:
        super().__init__("keyring")
        self.held: dict[tuple[str, str], str] = {}
        self.priority = priority

    def get_keyring(self) -> Keyring:
        return self

    def get_password(self, service: str, name: str) -> str | None:
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, password: str) -> None:
        self.held[service, name] = password

    def delete_password(self, service: str, name: str) -> None:
        del self.held[service, name]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    found = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", found)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setattr("nex_async.cli.credentials._keyring", _KEYRING)
    return found


async def test_a_login_is_kept_where_only_its_owner_reads(emulator: Emulator) -> None:
    """The key is asked about, kept in a file of mode 0600, and found by commands and by `Nex()`; a logout forgets it."""
    done = await asyncio.to_thread(run, "auth", "login", "--base-url", emulator.url, input=f"{KEY}\n")
    path = login_file()
    assert str(path) in done.stderr
    assert path.is_relative_to(Path.cwd())
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["credentials.json"]
    (shown,) = lines(await asyncio.to_thread(run, "auth", "status"))
    assert (shown["accepted"], shown["source"], shown["base_url"]) == (True, str(path), emulator.url)
    assert shown["key"] == f"****{KEY[-4:]}"
    await asyncio.to_thread(run, "tasks", "list")
    async with Nex() as nex:
        assert (await nex.tasks.list()).items == []
    await asyncio.to_thread(run, "auth", "logout")
    assert not path.exists()
    assert "no API key" in (await asyncio.to_thread(run, "auth", "status", status=3)).stderr
    with pytest.raises(ConfigError):
        resolve(None, None)


async def test_a_refused_key_is_not_kept(emulator: Emulator) -> None:
    """A key the server does not take leaves no file; `--no-check` keeps it unasked."""
    wrong = ("auth", "login", "--base-url", emulator.url)
    done = await asyncio.to_thread(run, *wrong, input="sk-wrong-key-of-somebody\n", status=3)
    assert "was not kept" in done.stderr
    assert not login_file().exists()
    await asyncio.to_thread(run, *wrong, "--no-check", input="sk-wrong-key-of-somebody\n")
    (shown,) = lines(await asyncio.to_thread(run, "auth", "status", status=3))
    assert shown["accepted"] is False


async def test_a_key_without_the_scope_is_a_key(emulator: Emulator) -> None:
    """403 says that the key was recognized."""
    emulator.faults.add(kind="status", status=403, times=None)
    await asyncio.to_thread(run, "auth", "login", "--base-url", emulator.url, input=f"{KEY}\n")
    assert login_file().exists()


async def test_the_keyring_comes_first(emulator: Emulator, keyring: Keyring) -> None:
    """Where there is a keyring it keeps the key, no file does, and commands find it; the environment still wins."""
    keep_in_file(Secret("sk-older-login-of-mine"), emulator.url)
    await asyncio.to_thread(run, "auth", "login", "--base-url", emulator.url, input=f"{KEY}\n")
    assert not login_file().exists()
    assert json.loads(keyring.held["nex-async", "login"])["api_key"] == KEY
    (shown,) = lines(await asyncio.to_thread(run, "auth", "status"))
    assert (shown["accepted"], shown["source"]) == (True, "the system's keyring")
    other = {"NEX_API_KEY": "sk-another-key-altogether", "NEX_API_BASE_URL": emulator.url}
    (shown,) = lines(await asyncio.to_thread(run, "auth", "status", env=other, status=3))
    assert shown["source"] == "NEX_API_KEY"
    await asyncio.to_thread(run, "auth", "logout")
    assert keyring.held == {}


async def test_a_keyring_that_keeps_nothing_is_passed_over(emulator: Emulator, keyring: Keyring) -> None:
    """A keyring without a backend is none: the file is used, unless the keyring was insisted on."""
    keyring.priority = 0
    insisting = ("auth", "login", "--base-url", emulator.url, "--store", "keyring")
    assert "no keyring here" in (await asyncio.to_thread(run, *insisting, input=f"{KEY}\n", status=1)).stderr
    await asyncio.to_thread(run, *insisting[:-2], input=f"{KEY}\n")
    assert login_file().exists()


def test_a_file_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that fails while it writes leaves the one before in place."""
    path = keep_in_file(Secret("sk-first-key-of-mine"), "https://app.nex.ai/api/developers")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keep_in_file(Secret("sk-second-key-of-mine"), "https://app.nex.ai/api/developers")
    assert path.read_bytes() == before
    assert forget() == [str(path)]


def test_a_login_brings_its_own_server() -> None:
    """The base URL of a login is not taken from another program's files, nor the other way round."""
    base = login_file().parent.parent
    (base / "workspaces" / "acme").mkdir(parents=True)
    (base / "config.json").write_text('{"active_workspace": "acme", "base_url": "https://other.example"}')
    (base / "workspaces" / "acme" / "credentials.json").write_text('{"api_key": "sk-of-the-other-program"}')
    for file in (base / "config.json", base / "workspaces" / "acme" / "credentials.json"):
        file.chmod(0o600)
    assert resolve(None, None)[1] == "https://other.example/api/developers"
    keep_in_file(Secret("sk-of-this-program-here"), "https://app.nex.ai/api/developers")
    key, url = resolve(None, None)
    assert (key.reveal() == "sk-of-this-program-here", url) == (True, "https://app.nex.ai/api/developers")


# ---- doctor ---------------------------------------------------------------------------------------------------------


async def test_the_doctor_finds_all_well(emulator: Emulator) -> None:
    """Versions, key, server, connection, clock, speed, scopes and the stream are looked at, and nothing is changed."""
    done = await asyncio.to_thread(run, "doctor", env=at(emulator))
    found = {row["step"]: row for row in lines(done)}
    assert set(found) == {"versions", "key", "server", "connection", "clock", "latency", "scope", "stream"}
    assert {row["state"] for row in lines(done)} == {"ok"}
    assert f"****{KEY[-4:]} from NEX_API_KEY" in found["key"]["found"]
    assert {entry.method for entry in emulator.requests if entry.operation != "listRecords"} == {"GET"}
    assert not leaked(done.output)


async def test_the_doctor_names_the_scopes_that_are_missing(emulator: Emulator) -> None:
    """A scope the key lacks is noted, and is no failure."""
    emulator.keys[KEY] = frozenset({"object.read", "task.read"})
    found = [(row["state"], row["found"]) for row in lines(await asyncio.to_thread(run, "doctor", env=at(emulator)))]
    assert ("ok", "task.read") in found
    assert ("note", "note.read: the key does not have it") in found
    assert ("note", "needs the scope insight.stream") in found


async def test_the_doctor_stops_where_the_way_ends(emulator: Emulator) -> None:
    """A key that is refused, and a server that is not there, end the look with the right status."""
    refused = await asyncio.to_thread(run, "doctor", env={**at(emulator), "NEX_API_KEY": "sk-wrong-key-of-mine"}, status=3)
    assert lines(refused)[-1]["state"] == "refused"
    gone = {"NEX_API_KEY": KEY, "NEX_API_BASE_URL": "http://127.0.0.1:9"}
    assert lines(await asyncio.to_thread(run, "doctor", "--timeout", "2", env=gone, status=1))[-1]["step"] == "connection"
    assert lines(await asyncio.to_thread(run, "doctor", status=3))[-1]["step"] == "key"


async def test_the_doctor_sees_a_clock_that_is_wrong(emulator: Emulator) -> None:
    """A clock that is minutes away from the server's is noted."""
    async with Emulator(keys={KEY: None}, clock=lambda: 1_000_000_000.0) as other:
        done = await asyncio.to_thread(run, "doctor", env=at(other))
    (clock,) = [row for row in lines(done) if row["step"] == "clock"]
    assert (clock["state"], "ahead of the server's" in clock["found"]) == ("note", True)

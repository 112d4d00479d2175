"""Where settings come from, which one wins, and what is refused."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nex_async import ConfigError, Nex, RetryPolicy, Secret, SessionPool, Timeouts
from nex_async.config import DEFAULT_BASE_URL, normalise_base_url, resolve

from .harness.canary import KEY, leaked

OTHER = "sk-other-0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, content: Any, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)


def key_of(*arguments: Any) -> str:
    secret, _ = resolve(*(arguments or (None, None)))
    return str.__str__(secret.reveal())


# ---- the key --------------------------------------------------------------------------------------------------------


def test_order_of_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over `NEX_API_KEY`, that over the active workspace, the flat file and the retired one."""
    places = [
        lambda: write(home / ".nex-mcp.json", {"api_key": "sk-retired"}),
        lambda: write(home / ".nex/config.json", {"api_key": "sk-flat", "active_workspace": "alder"}),
        lambda: write(home / ".nex/workspaces/alder/credentials.json", {"api_key": "sk-workspace", "workspace_id": 5}),
        lambda: monkeypatch.setenv("NEX_API_KEY", "sk-environment"),
    ]
    found = []
    with pytest.raises(ConfigError, match="no API key"):
        resolve(None, None)
    for place in places:
        place()
        found.append(key_of())
    assert found == ["sk-retired", "sk-flat", "sk-workspace", "sk-environment"]
    assert key_of("sk-argument", None) == "sk-argument"


def test_registry_form(home: Path) -> None:
    """The registry form of the configuration names the active workspace; other workspaces are left alone."""
    registry = {"active_workspace": "b", "workspaces": {"a": {"nickname": "A"}, "b": {"added_at": "2026"}}}
    write(home / ".nex/config.json", registry)
    write(home / ".nex/workspaces/a/credentials.json", {"api_key": "sk-a-key"})
    write(home / ".nex/workspaces/b/credentials.json", {"api_key": "sk-b-key", "workspace_id": "7"})
    assert key_of() == "sk-b-key"


def test_base_dir_moves_the_files(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`NEX_BASE_DIR` takes the place of `~/.nex`."""
    write(home / ".nex/config.json", {"api_key": "sk-home"})
    write(tmp_path / "elsewhere/config.json", {"api_key": "sk-elsewhere"})
    monkeypatch.setenv("NEX_BASE_DIR", str(tmp_path / "elsewhere"))
    assert key_of() == "sk-elsewhere"


@pytest.mark.parametrize("workspace", ["../../etc", "a/b", "..", "", "a\\b", "a\n"])
def test_active_workspace_cannot_leave_its_place(home: Path, workspace: str) -> None:
    """The name of a workspace leads to no file outside the workspaces."""
    write(home / ".nex/config.json", {"api_key": "sk-flat", "active_workspace": workspace})
    write(home / "credentials.json", {"api_key": "sk-outside"})
    write(home / ".nex/credentials.json", {"api_key": "sk-outside"})
    assert key_of() == "sk-flat"


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"api_key": 5}', "\x00", "[" * 20_000, "[auth]\napi_key=x"])
def test_damaged_files(home: Path, content: str) -> None:
    """A file that cannot be read as credentials is named, and its content is not shown."""
    write(home / ".nex/config.json", content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve(None, None)


def test_files_are_not_read_when_a_key_is_given(home: Path) -> None:
    """With a key at hand the files are not even opened; a damaged one does no harm."""
    write(home / ".nex/config.json", "{")
    assert key_of(KEY, None) == KEY


def test_unreadable_file(home: Path) -> None:
    """A directory in place of the file is a `ConfigError`, no OSError."""
    (home / ".nex/config.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(None, None)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_x27_key_file_readable_by_others(home: Path, mode: int) -> None:
    """A file with a key that others can read gives a warning with the remedy; the key is not in it."""
    write(home / ".nex/config.json", {"api_key": KEY}, mode)
    with pytest.warns(UserWarning, match="chmod 600") as caught:
        assert key_of() == KEY
    assert not any(leaked(str(warning.message)) for warning in caught)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o660, 0o666])
@pytest.mark.parametrize("content", [{"api_key": KEY}, {"api_key": KEY, "base_url": "https://evil.example"}])
def test_x26_key_file_writable_by_others(home: Path, mode: int, content: dict[str, str]) -> None:
    """A file with a key that others can write is refused: they could send the key to a host of theirs."""
    write(home / ".nex/config.json", content, mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        key_of()
    assert not leaked(repr(caught.value))


def test_x27_private_or_keyless_files_are_fine(home: Path) -> None:
    """A private key file, and a public file without a key, give no warning."""
    write(home / ".nex/config.json", {"active_workspace": "a"}, 0o644)
    write(home / ".nex/workspaces/a/credentials.json", {"api_key": KEY}, 0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert key_of() == KEY


# ---- the base URL ---------------------------------------------------------------------------------------------------


def test_order_of_base_urls(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, `NEX_DEV_URL`, `NEX_API_BASE_URL`, the files (only with their own key), production."""
    write(home / ".nex/config.json", {"api_key": OTHER, "base_url": "https://file.example"})
    assert resolve(KEY, None)[1] == DEFAULT_BASE_URL
    assert resolve(None, None)[1] == "https://file.example/api/developers"
    monkeypatch.setenv("NEX_API_BASE_URL", "https://env.example")
    assert resolve(None, None)[1] == "https://env.example/api/developers"
    monkeypatch.setenv("NEX_DEV_URL", "http://localhost:30000")
    assert resolve(None, None)[1] == "http://localhost:30000/api/developers"
    assert resolve(None, "https://argument.example")[1] == "https://argument.example/api/developers"


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("https://app.nex.ai", DEFAULT_BASE_URL),
        ("https://app.nex.ai/", DEFAULT_BASE_URL),
        ("https://app.nex.ai///", DEFAULT_BASE_URL),
        ("https://app.nex.ai/v1", DEFAULT_BASE_URL),
        ("https://app.nex.ai/api/developers", DEFAULT_BASE_URL),
        ("https://app.nex.ai/api/developers/", DEFAULT_BASE_URL),
        ("https://app.nex.ai/api/developers/v1", DEFAULT_BASE_URL),
        ("https://app.nex.ai/api/developers/v1/v1/", DEFAULT_BASE_URL),
        (" https://app.nex.ai\n", DEFAULT_BASE_URL),
        ("HTTPS://APP.NEX.AI", DEFAULT_BASE_URL),
        ("https://app.nex.ai:8443", "https://app.nex.ai:8443/api/developers"),
        ("http://localhost:30000", "http://localhost:30000/api/developers"),
        ("http://127.0.0.1", "http://127.0.0.1/api/developers"),
        ("http://127.8.9.1:1", "http://127.8.9.1:1/api/developers"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/api/developers"),
        ("https://proxy.example/nex", "https://proxy.example/nex"),
        ("https://proxy.example/nex/v1/", "https://proxy.example/nex"),
    ],
)
def test_base_url_forms(given_url: str, normal: str) -> None:
    """An origin, a full base URL and one with `/v1` mean the same; normalising twice changes nothing."""
    assert normalise_base_url(given_url) == normal
    assert normalise_base_url(normal) == normal


@pytest.mark.parametrize(
    "url",
    [
        "http://app.nex.ai",
        "http://127.0.0.1.evil.com",
        "http://localhost.evil.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[::ffff:8.8.8.8]",
        "http://2130706433",
    ],
)
def test_x14_plain_http(url: str) -> None:
    """Plain http is refused for everything but loopback."""
    with pytest.raises(ConfigError, match=r"plain http|usable host"):
        Nex(KEY, base_url=url)


X15 = [
    "https://app.nex.ai@evil.com",
    "https://user:pass@app.nex.ai",
    "https://app.nex.ai?x=1",
    "https://app.nex.ai/?",
    "https://app.nex.ai#",
    "https://app.nex.ai/#x",
    "https://app.nex.ai/../x",
    "https://app.nex.ai/./x",
    "https://app.nex.ai/%2e%2e/x",
    "https://app.nex.ai/a%2fb",
    "https://app.nex.ai:0",
    "https://app.nex.ai:",
    "https://app.nex.ai:99999",
    "https://app.nex.ai:x",
    "https://\u0430pp.nex.ai",
    "https://xn--pp-6kc.nex.ai",
    "https://a.xn--pp-6kc",
    "app.nex.ai",
    "//app.nex.ai",
    "https:app.nex.ai",
    "https:///x",
    "https://",
    "ftp://app.nex.ai",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://app.nex.ai\\@evil.com",
    "https://app.nex.ai/\\..\\x",
    "https://app.nex.ai\r\nHost: evil.com",
    "https://app.nex.ai/a b",
    "https://app.nex.ai\x00",
    "https://app .nex.ai",
    "https://[::1",
    "https://[x]",
    "https://a..b",
    "https://-a.b",
    'https://app.nex.ai/"x"',
    "https://app.nex.ai/<x>",
    "https://app.nex.ai/{slug}",
    "",
    "   ",
    None,
]


@pytest.mark.parametrize("url", X15)
def test_x15_hostile_base_urls(url: Any) -> None:
    """A base URL that could send the key elsewhere, or means nothing, is refused when the client is built."""
    with pytest.raises(ConfigError):
        normalise_base_url(url)
    if url is not None:
        with pytest.raises(ConfigError):
            Nex(KEY, base_url=url)


@given(st.text(max_size=30) | st.builds("https://{}{}".format, st.text(max_size=10), st.text(max_size=10)))
def test_x15_any_text(url: str) -> None:
    """Any text is refused, or normalised to https, or loopback, with a plain path."""
    try:
        normal = normalise_base_url(url)
    except ConfigError:
        return
    assert normal.isascii()
    assert normal.startswith(("https://", "http://"))
    assert not set(normal.removeprefix("https://")) & set('@?#%\\ \t\r\n"<>')
    assert normalise_base_url(normal) == normal


def test_x16_base_url_from_the_environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A base URL out of the environment obeys the same rules, and a host other than Nex's is said once, aloud."""
    monkeypatch.setenv("NEX_API_BASE_URL", "http://evil.example")
    with pytest.raises(ConfigError):
        Nex(KEY)
    monkeypatch.setenv("NEX_API_BASE_URL", "https://evil.example")
    Nex(KEY)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "evil.example" in warned[0].getMessage()
    caplog.clear()
    monkeypatch.setenv("NEX_API_BASE_URL", "https://app.nex.ai")
    Nex(KEY)
    Nex(KEY, base_url="https://evil.example")
    assert not caplog.records


# ---- other settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timeouts(total=0),
        lambda: Timeouts(total=-1),
        lambda: Timeouts(connect=float("nan")),
        lambda: Timeouts(read=float("inf")),
        lambda: Timeouts(pool=True),
        lambda: Timeouts(connect=None),  # type: ignore[arg-type]
        lambda: Timeouts(total="5"),  # type: ignore[arg-type]
        lambda: RetryPolicy(retries=-1),
        lambda: RetryPolicy(retries=1.5),  # type: ignore[arg-type]
        lambda: RetryPolicy(backoff_base=float("nan")),
        lambda: RetryPolicy(budget=-1),
        lambda: SessionPool(max_connections=0),
        lambda: SessionPool(keepalive=-1),
        lambda: SessionPool(max_body=True),
        lambda: SessionPool(ssl=False),  # type: ignore[arg-type]
        lambda: Nex(KEY, timeout=0),
        lambda: Nex(KEY, timeout="5"),  # type: ignore[arg-type]
        lambda: Nex(KEY, retry=3),  # type: ignore[arg-type]
        lambda: Nex(KEY, source=""),
        lambda: Nex(KEY, source="a\r\nb"),
        lambda: Nex(5),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_be_right(make: Any) -> None:
    """A setting that cannot be right raises `ConfigError` where it is made, before any call."""
    with pytest.raises(ConfigError):
        make()


def test_secret_can_be_passed_on() -> None:
    """A `Secret` serves as a key, equals another of the same text, and is no text itself."""
    secret = Secret(KEY)
    assert Secret(secret) == secret == Secret(KEY)
    assert len({secret, Secret(KEY)}) == 1
    assert secret != KEY
    assert key_of(secret, None) == KEY

"""Every block of code of every page is run as it stands."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path

import pytest

from nex_async import Nex
from nex_async.emulator import Emulator

from ..harness.canary import KEY
from .pages import PAGES, ROOT, blocks_of, text_of
from .shell import Shell
from .stage import Stage

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="terminals and signals")

ELSEWHERE = {
    "README.md": frozenset({"listen", "nightly"}),
    "docs/feeds.md": frozenset({"listen", "keep", "attend", "two_readers", "serve", "jobs", "last_week", "first_event"}),
    "docs/bulk.md": frozenset({"bring_in", "one_by_one", "nightly", "again", "watched", "careful"}),
    "docs/export.md": frozenset({"files", "batches", "parts", "elsewhere"}),
    "docs/dlt.md": frozenset({"load"}),
    "docs/ray.md": frozenset({"nightly"}),
    "docs/mirror.md": frozenset({"once", "look", "keep"}),
    "docs/migration-aiohttp-sse-client.md": frozenset({"first_event", "by_hand", "with_nex"}),
    "docs/deployment.md": frozenset({"application"}),
    "docs/sinks.md": frozenset({"relay"}),
    "docs/limits.md": frozenset({"in_one_process"}),
}
"""Functions that have tests of their own, because they never end or need a scene set for them."""

TABLE = "Company name,domains,Notes\n" + "".join(f"Company {n},c{n}.example,\n" for n in range(200))
FILES = {
    "README.md": {"people.csv": "name,email_addresses\nAda,ada@x.io\n"},
    "docs/bulk.md": {"companies.csv": TABLE, "companies.jsonl": '{"name": "Acme", "domains": ["acme.example"]}\n'},
}
"""Files a page takes for granted."""


@pytest.fixture
def free_port() -> int:
    """A port for a page that starts a server on one of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def _own_levels(caplog: pytest.LogCaptureFixture) -> None:
    """What a page makes of the levels of loggers ends with it: who was set once is set back by `caplog`."""
    for name in ("nex_async", "nex_async.feeds"):
        caplog.set_level(logging.getLogger(name).level, name)


@pytest.mark.usefixtures("_own_levels")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
async def test_what_a_page_shows_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python runs, commands print what is shown, in the order of the page, against the embedded Nex."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, content in FILES.get(page, {}).items():
        Path(name).write_text(content)
    async with Emulator(keys={KEY: None, "sk-local": None}) as emulator, Nex(KEY, base_url=emulator.url) as nex:
        monkeypatch.setenv("NEX_API_KEY", KEY)
        monkeypatch.setenv("NEX_API_BASE_URL", emulator.url)
        async with Shell(tmp_path, free_port, monkeypatch) as shell:
            await Stage(page, shell, emulator, nex, capsys).play(ELSEWHERE.get(page, frozenset()))


def test_what_is_skipped_is_tested_elsewhere() -> None:
    """Each function that is not called above is called by a test of its own."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [
        f"{page}: {name}"
        for page, names in ELSEWHERE.items()
        for name in names
        if not re.search(rf'shown\(\s*"{re.escape(page)}",\s*"{name}"', tests)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every file a page links to is there."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    """Every test, benchmark and session a page speaks of exists."""
    text = text_of(page)
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (ROOT / path).exists()] == []
    modules = [name.replace(".", "/") for name in re.findall(r"`(?:python -m )?(benchmarks\.\w+)`", text)]
    assert [name for name in modules if not (ROOT / f"{name}.py").exists()] == []
    sessions = re.findall(r"`nox -s (\w+)`", text)
    assert [name for name in sessions if f"\ndef {name}(session" not in text_of("noxfile.py")] == []

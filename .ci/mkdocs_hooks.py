"""What the site needs beyond mkdocs: the examples beside the pages, the sources for llms.txt, and no address of others."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
_FETCHED = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+href=["']?https?:""")


def on_files(files: Any, config: Any) -> Any:
    """Put the examples, to which pages link, into the site."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the examples lead there: in the repository they stand beside the pages' directory."""
    return markdown.replace("](../examples/", "](examples/")


def on_post_build(config: Any) -> None:
    """Copy the pages' sources, and refuse a site that makes a browser fetch something from elsewhere."""
    site = Path(config.site_dir)
    for page in (ROOT / "docs").rglob("*.md"):
        shutil.copyfile(page, site / page.relative_to(ROOT / "docs"))
    for page in site.rglob("*.html"):
        found = _FETCHED.search(page.read_text("utf-8"))
        if found is not None:
            raise PluginError(f"{page.relative_to(site)} fetches from another host: {found[0]}")

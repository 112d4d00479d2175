"""The project's own scripts as modules, for the tests of what they write and check."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["script"]

_FOLDER = Path(__file__).parents[2] / ".ci"


def script(name: str) -> ModuleType:
    """Return `.ci/<name>.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

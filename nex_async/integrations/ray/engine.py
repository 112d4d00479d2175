"""What is used of Ray and pyarrow, in one place. Neither says much of its types, and neither need be there to check ours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "BlockAccessor",
    "BlockMetadata",
    "Datasink",
    "Datasource",
    "RayError",
    "ReadTask",
    "cloudpickle",
    "pa",
    "pc",
    "ray",
]

try:
    ray: Any = importlib.import_module("ray")
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    _data: Any = importlib.import_module("ray.data")
    _block: Any = importlib.import_module("ray.data.block")
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError('this needs Ray Data: pip install "nex-async[ray]"', name=_missing.name) from None

cloudpickle: Any = importlib.import_module("ray.cloudpickle")
RayError: Any = importlib.import_module("ray.exceptions").RayError
if TYPE_CHECKING:

    class Datasource:
        """What Ray Data reads from."""

    class Datasink:
        """What Ray Data writes to."""

else:
    Datasource = _data.Datasource
    Datasink = _data.Datasink
ReadTask: Any = _data.ReadTask
BlockMetadata: Any = _block.BlockMetadata
BlockAccessor: Any = _block.BlockAccessor

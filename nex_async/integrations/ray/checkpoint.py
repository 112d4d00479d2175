"""What a run has done, in a folder that all workers reach: Parquet files, each complete or not there."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from ...errors import CheckpointError

__all__ = ["Checkpoint"]

_PLAN = "plan.json"


class Checkpoint:
    """A folder of finished parts. `uri` is a path, or any URI that pyarrow understands (`s3://`, `gs://`, `hdfs://`)."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri: str = os.fspath(uri)

    def _opened(self) -> tuple[Any, str]:
        import pyarrow as pa
        from pyarrow import fs

        try:
            found: tuple[Any, str]
            if "://" in self.uri:
                found = fs.FileSystem.from_uri(self.uri)
            else:
                found = fs.LocalFileSystem(), str(Path(self.uri).absolute())
            found[0].create_dir(found[1], recursive=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise CheckpointError(f"the checkpoint {self.uri} cannot be opened: {error}") from None
        return found

    def load(self, name: str) -> Any | None:
        """Return the table of a finished part, None where there is none."""
        import pyarrow.parquet as pq

        system, folder = self._opened()
        path = f"{folder}/{name}.parquet"
        if not _is_there(system, path):
            return None
        with system.open_input_file(path) as file:
            return pq.read_table(file)

    def has(self, name: str) -> bool:
        """Return whether a part is finished."""
        system, folder = self._opened()
        return _is_there(system, f"{folder}/{name}.parquet")

    def save(self, name: str, table: Any) -> None:
        """Note a part as finished. Seen by others only when it is complete."""
        import pyarrow.parquet as pq

        system, folder = self._opened()
        part = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
        with system.open_output_stream(part) as file:
            pq.write_table(table, file)
        system.move(part, f"{folder}/{name}.parquet")

    def plan(self) -> dict[str, Any] | None:
        """Return what the folder was begun with, None for an empty one. Raises `CheckpointError` when it cannot be read."""
        system, folder = self._opened()
        path = f"{folder}/{_PLAN}"
        if not _is_there(system, path):
            return None
        with system.open_input_file(path) as file:
            try:
                found = json.loads(file.read())
            except ValueError:
                found = None
        if not isinstance(found, dict):
            raise CheckpointError(f"the checkpoint {self.uri} is damaged: {_PLAN} cannot be read")
        return found

    def begin(self, plan: dict[str, Any]) -> None:
        """Note what the folder is begun with."""
        system, folder = self._opened()
        part = f"{folder}/.{_PLAN}.{secrets.token_hex(4)}.part"
        with system.open_output_stream(part) as file:
            file.write(json.dumps(plan).encode())
        system.move(part, f"{folder}/{_PLAN}")


def _is_there(system: Any, path: str) -> bool:
    from pyarrow import fs

    return bool(system.get_file_info(path).type == fs.FileType.File)

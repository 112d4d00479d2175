"""Several things deleted with one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import click

from .output import Output
from .problem import FAILED, PARTLY, one_line

__all__ = ["remove"]


async def remove(delete: Callable[[str], Awaitable[None]], ids: Sequence[str], output: Output) -> int:
    """Delete one after the other; what fails is told, and does not keep the others. Return the exit status."""
    from ..errors import APIError

    if len(ids) == 1:
        await delete(ids[0])
        output.done(f"{ids[0]} is gone.")
        return 0
    failed = 0
    for each in ids:
        try:
            await delete(each)
        except APIError as error:
            if error.status in (401, 403):
                raise
            failed += 1
            click.echo(f"{each}: {one_line(error)}", err=True)
        else:
            output.done(f"{each} is gone.")
    return FAILED if failed == len(ids) else PARTLY if failed else 0

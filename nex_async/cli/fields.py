"""`SLUG=VALUE` and `SLUG:=JSON` at the command line, as the attributes of a record."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from ..client import Nex

__all__ = ["Fields", "fields_options", "json_of"]

Command: TypeAlias = "Callable[..., Any]"


class Fields:
    """Values by slug: some as texts, which become what their attribute wants, some as JSON."""

    def __init__(self, texts: dict[str, list[str]], values: dict[str, Any]) -> None:
        self._texts = texts
        self._values = values

    async def attributes(self, nex: Nex, slug: str | None) -> dict[str, Any]:
        """Return the attributes; texts are read by the definition of the object `slug`, where the key may read that."""
        if not self._texts:
            return self._values
        from ..errors import PermissionDeniedError
        from .cells import of_cell

        try:
            definition = await nex.objects.get(slug) if slug else None
        except PermissionDeniedError:
            definition = None
        knows = definition is not None
        known = {each.slug: each for each in (definition and definition.attributes) or ()}
        found = dict(self._values)
        for name, texts in self._texts.items():
            cells = [of_cell(known.get(name), text, knows=knows) if text.strip() else text for text in texts]
            if len(cells) == 1:
                found[name] = cells[0]
            else:
                found[name] = [item for cell in cells for item in (cell if isinstance(cell, list) else [cell])]
        return found


def fields_options(*, required: bool = True) -> Callable[[Command], Command]:
    """Add `SLUG=VALUE ...` and `--json`; the command gets them as `fields`, which are empty unless `required`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(*args: Any, pairs: tuple[str, ...], document: str | None, **kwargs: Any) -> Any:
            if required and not pairs and document is None:
                raise click.UsageError("no attributes were given: SLUG=VALUE, SLUG:=JSON or --json")
            return command(*args, fields=_fields(pairs, document), **kwargs)

        called = click.option("--json", "document", metavar="JSON|@FILE|-", help="Attributes as a JSON object.")(called)
        return click.argument("pairs", nargs=-1, metavar="[SLUG=VALUE | SLUG:=JSON]...")(called)

    return decorate


def _fields(pairs: tuple[str, ...], document: str | None) -> Fields:
    values = {} if document is None else json_of(document, "--json")
    if not isinstance(values, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--json")
    texts: dict[str, list[str]] = {}
    for pair in pairs:
        slug, equals, value = pair.partition("=")
        if not equals or not slug.rstrip(":"):
            raise click.BadParameter(f"{pair!r} is not SLUG=VALUE", param_hint="SLUG=VALUE")
        if slug.endswith(":"):
            values[slug[:-1]] = json_of(value, f"{slug}=")
        else:
            texts.setdefault(slug, []).append(value)
    return Fields(texts, values)


def json_of(text: str, where: str) -> Any:
    """Return the JSON that an argument is, or that stands in the file `@FILE` or on standard input (`-`)."""
    import msgspec

    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"cannot read {text[1:]!r}: {error}", param_hint=where) from None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint=where) from None

"""Object definitions as Python source: a msgspec Struct each, and the choices of select attributes as Literals.

Type checkers see a Literal; at run time such a field is a plain string, so that a choice somebody adds costs no record.
Everything that comes from the workspace is untrusted: it gets into the source as names made of letters and digits, as string
literals, and as docstrings without quotes or escapes.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterable, Iterator

from ..models import Attribute, Object

__all__ = ["module_of"]

_WIDTH = 110

_PLAIN = {
    "text": "str", "email": "str", "url": "str", "domain": "str", "date": "str", "number": "float", "boolean": "bool",
    "phone": "str | Phone", "full_name": "str | FullName", "location": "str | Location",
    "currency": "float | Currency", "social_profile": "str | SocialProfile",
}  # fmt: skip

_STRUCTURED = {
    "FullName": ("A name in its parts.", {"first_name": "str", "last_name": "str"}),
    "Phone": ("A phone number in its parts.", {"country_code": "int", "number": "str"}),
    "Location": (
        "A place in its parts.",
        {"street": "str", "city": "str", "region": "str", "postal_code": "str", "country": "str"},
    ),
    "Currency": ("An amount of money.", {"value": "float", "currency": "str"}),
    "SocialProfile": ("An account elsewhere.", {"username": "str", "url": "str"}),
}

_TYPES = frozenset({"str", "int", "float", "bool", "list", "None"})

_UNUSABLE = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
"""What msgspec refuses in the name of a field. No slug has any of it; an attribute whose slug had would be left out."""

_HEAD = '''"""The objects of a Nex workspace as types, written by `nex-async types`. Change the workspace, not this file.

    async for row in nex.records.list({slug}, as_type={name}):
        row.attributes
"""

from __future__ import annotations
'''


def module_of(objects: Iterable[Object]) -> str:
    """Return the source of a module; the same objects make the same text, in whatever order they come."""
    known = sorted((each for each in objects if each.slug), key=lambda each: each.slug or "")
    taken = {*_STRUCTURED, "TYPE_CHECKING", "Any", "Literal", "TypeAlias", "msgspec"}
    names = {each.id: _unique(_class_name(each.slug or ""), taken) for each in known}
    choices: list[str] = []
    structs = [block for each in known for block in _struct(each, names[each.id], choices, taken)]
    body = "\n".join(structs)
    used = [name for name in _STRUCTURED if re.search(rf"\b{name}\b", body)]
    first = next((each for each in known if re.fullmatch(r"[A-Za-z0-9_-]+", each.slug or "")), None)
    head = _HEAD.format(slug=_literal(first.slug or "" if first else "person"), name=names[first.id] if first else "Person")
    typing = [
        name
        for name, is_used in (
            ("TYPE_CHECKING", choices), ("Any", "Any" in body), ("Literal", choices), ("TypeAlias", choices),
        ) if is_used
    ]  # fmt: skip
    imports = [f"from typing import {', '.join(typing)}\n"] * bool(typing)
    exported = "".join(f"    {_literal(name)},\n" for name in sorted(names.values()))
    parts = [
        head,
        "\n".join([*imports, "import msgspec\n"]),
        f"__all__ = [\n{exported}]\n" if names else "__all__: list[str] = []\n",
    ]
    if choices:
        seen = "".join(f"    {line}\n" if line else "" for block in choices for line in block.splitlines())
        plain = "".join(f"    {block.partition(':')[0]} = str\n" for block in choices)
        parts.append(f"if TYPE_CHECKING:\n{seen}else:  # a choice that is added later costs no record\n{plain}")
    parts += ["\n" + _part(name) for name in used]
    parts += ["\n" + block for block in structs]
    return "\n".join(parts)


def _part(name: str) -> str:
    text, fields = _STRUCTURED[name]
    lines = [f"class {name}(msgspec.Struct, kw_only=True, omit_defaults=True):", f'    """{text}"""', ""]
    lines += [f"    {field}: {kind} | None = None" for field, kind in fields.items()]
    return "\n".join(lines) + "\n"


def _struct(definition: Object, name: str, choices: list[str], taken: set[str]) -> Iterator[str]:
    lines = [f"class {name}(msgspec.Struct, kw_only=True, omit_defaults=True):"]
    lines += _docstring(definition.description or definition.name_plural or definition.name or name)
    fields: set[str] = set()
    attributes = {each.slug: each for each in definition.attributes or () if each.slug and not _UNUSABLE.search(each.slug)}
    for _, attribute in sorted(attributes.items()):
        lines += ["", *_field(attribute, name, fields, choices, taken)]
    yield "\n".join(lines) + "\n"


def _field(attribute: Attribute, owner: str, fields: set[str], choices: list[str], taken: set[str]) -> list[str]:
    slug = attribute.slug or ""
    name = _field_name(slug)
    # Annotations are looked up in the class first: no field may have the name of a type.
    field = _unique(f"attribute_{name}" if name in taken or name in _TYPES else name, fields)
    one = _type_of(attribute, owner, choices, taken)
    kind, default = (f"list[{one}]", "[]") if attribute.options.is_multi_value else (f"{one} | None", "None")
    if one == "Any" and not attribute.options.is_multi_value:
        kind = "Any"
    if field != slug:
        made = "default_factory=list" if default == "[]" else "default=None"
        default = f"msgspec.field({made}, name={_literal(slug)})"
    return [f"    {field}: {kind} = {default}", *_docstring(_words(attribute))]


def _type_of(attribute: Attribute, owner: str, choices: list[str], taken: set[str]) -> str:
    if attribute.type == "number" and attribute.options.is_whole_number:
        return "int"
    if attribute.type != "select":
        return _PLAIN.get(attribute.type or "", "Any")
    options = attribute.options.select_options or []
    values = dict.fromkeys(said for option in options for said in (option.id, option.name) if said)
    if not values:
        return "str"
    alias = _unique(f"{owner}{_class_name(attribute.slug or '')}", taken)
    listed = "".join(f"    {_literal(value)},\n" for value in values)
    choices.append(f"{alias}: TypeAlias = Literal[\n{listed}]\n")
    return alias


def _words(attribute: Attribute) -> str:
    rules = attribute.options
    said = [attribute.description or attribute.name or attribute.slug or ""]
    kinds = {"required": rules.is_required, "unique": rules.is_unique}
    notes = [name for name, is_so in kinds.items() if is_so]
    if attribute.type == "date":
        notes.append("a date or time in RFC 3339")
    if attribute.type == "select":
        labels = [f"{option.id} is {option.name}" for option in rules.select_options or () if option.name != option.id]
        notes.append("; ".join(["written as the id of a choice", *labels]))
    text = said[0].rstrip(".")
    return f"{text} ({', '.join(notes)})." if notes else f"{text}."


# ---- what comes from the workspace, made harmless ---------------------------------------------------------------------


def _docstring(text: str) -> list[str]:
    """Return a docstring; what could end it, or be an escape, is left out."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"', "'").split())
    lines = textwrap.wrap(plain, _WIDTH - 10) or ["."]
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}" for line in lines[1:]), '    """']


def _literal(text: str) -> str:
    """Return a string literal, in ASCII, in the quotes that formatters prefer."""
    shown = ascii(text)
    if shown.startswith("'") and '"' not in shown:
        return f'"{shown[1:-1]}"'
    return shown


def _words_of(slug: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9]+", slug)


def _class_name(slug: str) -> str:
    name = "".join(word[0].upper() + word[1:] for word in _words_of(slug)) or "Object"
    return f"Object{name}" if name[0].isdigit() or keyword.iskeyword(name) or hasattr(builtins, name) else name


def _field_name(slug: str) -> str:
    name = "_".join(word for word in _words_of(slug)) or "attribute"
    return f"attribute_{name}" if name[0].isdigit() or keyword.iskeyword(name) or name.startswith("_") else name


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}{number}"
    taken.add(found)
    return found

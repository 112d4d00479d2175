"""`nex-async types`: the workspace's objects as Python that type checkers accept and msgspec decodes."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nex_async import Nex
from nex_async.cli.schema_types import module_of
from nex_async.models import Attribute, AttributeOptions, Object, SelectOption

from .running import nex

KINDS = (
    "text", "number", "email", "phone", "url", "date", "boolean", "currency", "location", "select", "social_profile",
    "domain", "full_name", "of a later version", None,
)  # fmt: skip


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def deal() -> None:
    """Give the workspace an object with an attribute of every type, and a choice of stages."""
    nex("objects", "create", "deal", "Deal", "--description", "What we sell.")
    for kind in KINDS[:13]:
        if kind not in ("select", None):
            nex("objects", "add-attribute", "deal", f"a-{kind}", str(kind))
    nex("objects", "add-attribute", "deal", "stage", "select", "--choice", "Open", "--choice", "Won")
    nex("objects", "add-attribute", "deal", "seats", "number", "--whole", "--required", "--description", "How many seats.")


async def test_the_module_decodes_what_the_workspace_holds(tmp_path: Path) -> None:
    """Each attribute has its type, in Structs that `as_type=` takes, and that can be written back."""
    import asyncio

    await asyncio.to_thread(deal)
    path = tmp_path / "crm_types.py"
    path.write_text((await asyncio.to_thread(nex, "types")).stdout)
    crm: Any = load(path)
    assert set(crm.__all__) == {"Company", "Deal", "Person"}
    async with Nex.local("db") as client:
        stage = (await client.objects.get("deal")).attribute("stage")
        assert stage is not None
        won = (stage.options.select_options or [])[1].id
        values = {
            "name": "Big", "seats": 5, "stage": won, "a-currency": {"value": 9.5, "currency": "EUR"}, "a-boolean": True,
            "a-location": {"city": "Oslo"}, "a-full_name": {"first_name": "Ada", "last_name": "Park"}, "a-phone": "+47 1234567",
        }  # fmt: skip
        made = await client.records.create("deal", values)
        (row,) = await client.records.list("deal", as_type=crm.Deal).collect()
        assert (row.attributes.seats, row.attributes.stage, row.attributes.a_currency.value) == (5, won, 9.5)
        assert (row.attributes.a_location.city, row.attributes.a_full_name.first_name) == ("Oslo", "Ada")
        again = await client.records.create("deal", row.attributes)
        assert again.attributes == made.attributes


def test_the_module_passes_the_type_checkers(tmp_path: Path) -> None:
    """`mypy --strict` and pyright accept it, and see the choices of a select."""
    pytest.importorskip("mypy")
    deal()
    Path("crm.py").write_text(nex("types").stdout)
    Path("use.py").write_text(
        "from crm import Deal, Person\n"
        "deal = Deal(name='Big', seats=5, stage='Won')\n"
        "seats: int | None = deal.seats\n"
        "emails: list[str] = Person().email_addresses\n"
        "Deal(stage='Lost')  # not a choice\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10", "--cache-dir", str(tmp_path / "cache"), "use.py"],
        capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout
    assert errors[0].startswith("use.py:5: ")


def test_a_choice_that_is_added_costs_no_record(tmp_path: Path) -> None:
    """At run time a select is a string: what is no choice yet still decodes."""
    import msgspec

    options = AttributeOptions(select_options=[SelectOption(id="1", name="Open")])
    text = module_of(
        [Object(id="1", slug="deal", attributes=[Attribute(id="2", slug="stage", type="select", options=options)])]
    )
    path = tmp_path / "late_types.py"
    path.write_text(text)
    crm: Any = load(path)
    assert msgspec.json.decode(b'{"stage": "of tomorrow"}', type=crm.Deal).stage == "of tomorrow"


def test_a_check_tells_drift() -> None:
    """`--check` is silent while the file is what the workspace is; afterwards it shows the lines that differ, with status 1."""
    Path("crm.py").write_text(nex("types").stdout)
    assert nex("types", "--check", "crm.py").output == ""
    nex("objects", "add-attribute", "person", "tier", "text")
    done = nex("types", "--check", "crm.py", status=1)
    assert "+    tier: str | None = None" in done.stdout
    assert "crm.py is not what the workspace is" in done.stderr
    assert nex("types", "--object", "company").stdout.count("class Company(") == 1
    assert "class Person(" not in nex("types", "--object", "company").stdout


names = st.one_of(
    st.text(max_size=30), st.sampled_from(['"""', "'''", "\\", "class", "import os", "_x", "1", "{", "Any", "str", "é"])
)
attributes = st.builds(
    Attribute, id=st.just("1"), slug=names, type=st.sampled_from(KINDS), name=names, description=names,
    options=st.builds(
        AttributeOptions, is_multi_value=st.booleans(), is_required=st.booleans(), is_whole_number=st.booleans(),
        select_options=st.lists(st.builds(SelectOption, id=names, name=names), max_size=3),
    ),
)  # fmt: skip
objects = st.lists(
    st.builds(Object, id=names, slug=names, name=names, description=names, attributes=st.lists(attributes, max_size=4)), max_size=4,
    unique_by=lambda each: each.id,
)  # fmt: skip


@given(objects)
def test_nothing_a_workspace_holds_becomes_code(found: list[Object]) -> None:
    """Whatever slugs, names and descriptions hold, the module compiles, and holds nothing but the declarations it should."""
    tree = ast.parse(module_of(found))
    for node in tree.body:
        assert isinstance(node, (ast.Expr, ast.ImportFrom, ast.Import, ast.Assign, ast.AnnAssign, ast.If, ast.ClassDef))
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant)
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                assert isinstance(part, (ast.Expr, ast.AnnAssign))
                assert not isinstance(part, ast.Expr) or isinstance(part.value, ast.Constant)
            fields = [
                part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            ]
            assert len(fields) == len(set(fields))
            assert not any(keyword.iskeyword(field) for field in fields)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) == len(set(classes))
    names: dict[str, object] = {"__name__": "generated"}
    sys.modules["generated"] = ModuleType("generated")
    exec(compile(tree, "generated", "exec"), sys.modules["generated"].__dict__)
    import msgspec

    for name in sys.modules["generated"].__dict__["__all__"]:
        msgspec.json.Decoder(sys.modules["generated"].__dict__[name])
    assert names


@given(objects, st.randoms())
def test_the_order_of_a_listing_does_not_matter(found: list[Object], random: Any) -> None:
    """The same objects make the same text, so that a check is silent when nothing has changed."""
    unique = list({each.slug: each for each in found}.values())
    shuffled = list(unique)
    random.shuffle(shuffled)
    assert module_of(unique) == module_of(shuffled)

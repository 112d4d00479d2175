from __future__ import annotations

from nex_async import Nex


async def test_main_job(nex: Nex) -> None:
    """What is written is read back."""
    ada = await nex.records.create("person", {"name": "Ada", "email_addresses": ["ada@x.io"]})
    assert [row.id async for row in nex.records.list("person")] == [ada.id]

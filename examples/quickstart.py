"""The shortest whole program: write, list, search, against the embedded Nex. Replace `Nex.local()` by `Nex()` for yours."""

from __future__ import annotations

import asyncio

from nex_async import Nex


async def main() -> None:
    async with Nex.local() as nex:
        for name, address in (("Ada Park", "ada@x.io"), ("Bo Lind", "bo@x.io"), ("Ada Berg", "berg@y.io")):
            await nex.records.upsert("person", {"name": name, "email_addresses": [address]}, match_on="email_addresses")
        async for person in nex.records.list("person", sort="name"):
            print(person.id, person.text("name"), person.text("email_addresses"))
        print([hit.primary_value for hit in await nex.search.all("ada")])


if __name__ == "__main__":
    asyncio.run(main())

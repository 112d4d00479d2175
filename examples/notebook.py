# %% [markdown]
# # Nex in a notebook
#
# The client is async, and a notebook awaits at its top level: no `asyncio.run`, no extra package. This file opens as a
# notebook in VS Code and PyCharm, in Jupyter after `pip install jupytext`, and `jupytext --to ipynb examples/notebook.py`
# makes one. With `NEX_LOCAL=1` it works on an embedded Nex; without, on yours: `NEX_API_KEY`, `NEX_API_BASE_URL`.

# %%
import os
from collections import Counter
from contextlib import AsyncExitStack

from nex_async import Nex

notebook = AsyncExitStack()  # what is opened in one cell stays open for the others, and is closed by the last
nex = await notebook.enter_async_context(Nex.local() if os.environ.get("NEX_LOCAL") == "1" else Nex())
nex

# %% [markdown]
# Three people; by their addresses, so that running the cell again changes nothing.

# %%
for name, address, title in (
    ("Ada Park", "ada@techflow.io", "CTO"),
    ("Bo Lind", "bo@techflow.io", "Engineer"),
    ("Cem Demir", "cem@acme.example", "Buyer"),
):
    attributes = {"name": name, "email_addresses": [address], "job_title": title}
    await nex.records.upsert("person", attributes, match_on="email_addresses")

# %% [markdown]
# A listing pages by itself. `collect()` makes a list of it, of 10 000 rows here at most.

# %%
people = await nex.records.list("person", sort="name").collect(max_items=10_000)
len(people)

# %% [markdown]
# A text goes in, insights come out: the job is awaited, then what it has found is listed.

# %%
job = await nex.context.add_text("Ada Park <ada@techflow.io> asked for a demo. Cem Demir <cem@acme.example> signed.")
artifact = await job
insights = await nex.insights.list(last="1h").collect()
[(insight.type, insight.content) for insight in insights]

# %% [markdown]
# A small table: who works where, and how much was learned of each company.

# %%
domains = [person.text("email_addresses").partition("@")[2] for person in people]
mentions = Counter(domain for insight in insights for domain in set(domains) if domain in str(insight.content))
print(f"{'name':<12}{'title':<12}{'company':<14}{'insights':>8}")
for person, domain in zip(people, domains, strict=True):
    print(f"{person.text('name'):<12}{person.text('job_title'):<12}{domain:<14}{mentions[domain]:>8}")

# %%
await notebook.aclose()

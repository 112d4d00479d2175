"""The graph: what joins records, and what insights say about them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Api


async def ingest(api: Api, *texts: str) -> None:
    for text in texts:
        await api("POST", "/v1/context/text", {"content": text})


def edges(graph: Any, kind: str) -> list[Any]:
    return [edge for edge in graph["context_edges"] if edge["edge_type"] == kind]


async def relate(api: Api) -> tuple[Any, Any, Any]:
    """Return a person and a company that are related, and the relationship."""
    ada, alder = await api.record(), await api.record("company", name="Alder")
    definition = {
        "type": "one_to_many",
        "entity_definition_1_id": alder["object_id"],
        "entity_definition_2_id": ada["object_id"],
        "entity_1_to_2_predicate": "employs",
        "entity_2_to_1_predicate": "works_at",
    }
    made = await api("POST", "/v1/relationships", definition)
    body = {"definition_id": made["id"], "entity_1_id": alder["id"], "entity_2_id": ada["id"]}
    return ada, alder, await api("POST", f"/v1/records/{ada['id']}/relationships", body)


async def test_an_empty_workspace_has_an_empty_graph(api: Api) -> None:
    """Every part of the graph is there when there is nothing in it."""
    graph = await api("GET", "/v1/graph")
    assert graph == {
        "nodes": [],
        "edges": [],
        "relationship_definitions": [],
        "context_edges": [],
        "insight_nodes": [],
        "insights": {},
        "total_nodes": 0,
        "total_edges": 0,
        "total_context_edges": 0,
    }


async def test_records_are_nodes_newest_first(api: Api) -> None:
    """A record is a node with its type and object; members of lists are none."""
    ada = await api.record()
    alder = await api.record("company", name="Alder")
    made = await api("POST", "/v1/objects/person/lists", {"name": "VIP", "slug": "vip"})
    await api("POST", f"/v1/lists/{made['id']}", {"parent_id": ada["id"]})
    graph = await api("GET", "/v1/graph")
    assert [(node["id"], node["name"], node["type"], node["definition_slug"]) for node in graph["nodes"]] == [
        (alder["id"], "Alder", "company", "company"),
        (ada["id"], "Ada Park", "person", "person"),
    ]
    assert graph["nodes"][1]["created_at"] == ada["created_at"]
    assert graph["total_nodes"] == 2


async def test_relationships_are_edges(api: Api) -> None:
    """A relationship is an edge from its first record to its second, labelled by the predicate of its definition."""
    ada, alder, made = await relate(api)
    graph = await api("GET", "/v1/graph")
    definition = made["definition_id"]
    edge = {"id": made["id"], "source": alder["id"], "target": ada["id"], "label": "employs", "definition_id": definition}
    assert graph["edges"] == [edge]
    assert graph["relationship_definitions"] == [
        {"id": definition, "name": "employs", "entity_1_to_2": "employs", "entity_2_to_1": "works_at"}
    ]
    assert graph["total_edges"] == 1


async def test_a_limit_cuts_the_nodes_and_leaves_the_totals(api: Api) -> None:
    """A slice holds the newest records, the edges that touch them, wherever these lead, and counts the whole workspace."""
    _, alder, made = await relate(api)
    await api.record("company", name="Birch")
    graph = await api("GET", "/v1/graph?limit=2")
    assert [node["name"] for node in graph["nodes"]] == ["Birch", "Alder"]
    assert graph["edges"][0]["id"] == made["id"]
    assert graph["edges"][0]["source"] == alder["id"]
    assert (graph["total_nodes"], graph["total_edges"]) == (3, 1)
    graph = await api("GET", "/v1/graph?limit=1")
    assert graph["edges"] == []
    assert (graph["total_nodes"], graph["total_edges"]) == (3, 1)


async def test_an_insight_is_a_node_with_an_edge_to_each_record(api: Api) -> None:
    """An insight has an ei: node, an insight edge to each record it is about, and a summary under each record's id."""
    await ingest(api, "ada@alder.io is unhappy and may churn.")
    graph = await api("GET", "/v1/graph")
    node = graph["insight_nodes"][0]
    assert node["id"].startswith("ei:")
    assert (node["type"], node["source"]) == ("risk", "entity_insight")
    assert {edge["target"] for edge in edges(graph, "insight")} == {each["id"] for each in graph["nodes"]}
    assert {(edge["source"], edge["label"]) for edge in edges(graph, "insight")} == {(node["id"], "risk")}
    assert all(edge["id"].startswith("ei_edge_") for edge in edges(graph, "insight"))
    summary = {"content": node["content"], "confidence": node["confidence"], "type": "risk"}
    assert graph["insights"] == {each["id"]: [summary] for each in graph["nodes"]}


async def test_an_insight_about_two_records_joins_them(api: Api) -> None:
    """Two records in one insight get a context edge; a relationship insight makes it a triplet, labelled by its verb."""
    await ingest(api, "Ada Park <ada@alder.io> will send a proposal.")
    graph = await api("GET", "/v1/graph")
    ids = {node["name"]: node["id"] for node in graph["nodes"]}
    (edge,) = edges(graph, "context")
    assert edge["id"] == f"ctx_{ids['Ada Park']}_{ids['Alder']}"
    assert (edge["source"], edge["target"], edge["label"]) == (ids["Ada Park"], ids["Alder"], "context")
    await ingest(api, "Ada reports to the board of alder.io these days.")
    graph = await api("GET", "/v1/graph")
    assert edges(graph, "context") == []
    (edge,) = edges(graph, "triplet")
    assert edge["id"] == f"tri_{ids['Ada Park']}_{ids['Alder']}"
    assert edge["label"] == "reports_to"


async def test_insights_of_one_kind_are_linked(api: Api) -> None:
    """Two insights of one type about one record are related; only triplets and links carry a confidence."""
    await ingest(api, "ada@alder.io is unhappy.", "ada@alder.io may cancel.", "Ada met the team of alder.io.")
    graph = await api("GET", "/v1/graph")
    (link,) = edges(graph, "insight_link")
    assert link["id"].startswith("il_")
    assert link["label"] == "related_to"
    assert {link["source"], link["target"]} < {node["id"] for node in graph["insight_nodes"]}
    for edge in graph["context_edges"]:
        assert ("confidence" in edge) == (edge["edge_type"] in ("triplet", "insight_link"))
    assert graph["total_context_edges"] == len(graph["context_edges"])
    assert len({edge["id"] for edge in graph["context_edges"]}) == len(graph["context_edges"])


async def test_what_compounding_has_learnt_is_in_the_graph(api: Api) -> None:
    """A pattern is a ki: node on its record, linked to the insights it came from; a deleted record takes it out."""
    await ingest(api, "ada@gmail.com is unhappy.", "ada@gmail.com may cancel soon.")
    await api("POST", "/v1/compounding/trigger", {"job_type": "pattern_detection"}, status=202)
    graph = await api("GET", "/v1/graph")
    (learnt,) = [node for node in graph["insight_nodes"] if node["id"].startswith("ki:")]
    assert learnt["source"] == "knowledge_insight"
    (record,) = graph["nodes"]
    assert {edge["target"] for edge in graph["context_edges"] if edge["source"] == learnt["id"]} == {
        record["id"],
        *(node["id"] for node in graph["insight_nodes"] if node["id"].startswith("ei:")),
    }
    await api("DELETE", f"/v1/records/{record['id']}")
    assert (await api("GET", "/v1/graph"))["insight_nodes"] == []


async def test_the_page_holds_the_graph_and_nothing_of_it_is_markup(api: Api) -> None:
    """format=html is a whole page without foreign parts; what a record holds cannot end its script."""
    await api.record(name="</script><script>alert(1)</script>")
    async with api.session.get(
        api.url + "/v1/graph?format=html", headers={"Authorization": f"Bearer {api.key}"}
    ) as response:
        page = await response.text()
        assert response.status == 200
        assert response.content_type == "text/html"
    assert page.startswith("<!doctype html>")
    assert "alert(1)</script>" not in page
    assert "http://" not in page
    assert "https://" not in page
    embedded = page.split('id="graph">')[1].split("</script>")[0]
    assert json.loads(embedded)["nodes"][0]["name"] == "</script><script>alert(1)</script>"


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "limit=x", "format=xml", "format=HTML"])
async def test_a_limit_or_format_that_cannot_be_is_refused(api: Api, query: str) -> None:
    """A limit outside 1 to 5000 and an unknown format are named in a 400."""
    await api.refused("GET", f"/v1/graph?{query}", None, query.partition("=")[0])


async def test_the_largest_slice(api: Api) -> None:
    """The limit may be 5000, and an absent format or an empty one is JSON."""
    for query in ("limit=5000", "format=", "format=json"):
        assert (await api("GET", f"/v1/graph?{query}"))["total_nodes"] == 0

"""The commands over the data of a workspace: what they do, and what they print for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from .running import lines, nex

ADA = ("name=Ada Park", "email_addresses=ada@x.io", "job_title=CEO")


def made(*arguments: str) -> str:
    """Run a command that prints one thing, and return its id."""
    (thing,) = lines(nex(*arguments))
    return str(thing["id"])


# ---- records --------------------------------------------------------------------------------------------------------


def test_a_record_is_created_changed_read_and_deleted() -> None:
    """Values are read by the type of their attribute; what is not given stays; JSON is taken as it is."""
    (ada,) = lines(nex("records", "create", "person", *ADA))
    assert ada["attributes"] == {"name": "Ada Park", "email_addresses": ["ada@x.io"], "job_title": "CEO"}
    (changed,) = lines(
        nex("records", "update", ada["id"], "job_title:=null", "email_addresses=a@x.io", "email_addresses=b@x.io")
    )
    assert changed["attributes"].get("job_title") is None
    assert changed["attributes"]["email_addresses"] == ["a@x.io", "b@x.io"]
    (same,) = lines(
        nex("records", "upsert", "person", "--match-on", "email_addresses", "name=Ada", "email_addresses=b@x.io")
    )
    assert (same["id"], same["attributes"]["name"]) == (ada["id"], "Ada")
    assert lines(nex("records", "get", ada["id"])) == [same]
    nex("records", "delete", ada["id"], "--yes")
    nex("records", "get", ada["id"], status=1)


def test_attributes_come_from_a_file_or_from_standard_input() -> None:
    """`--json @FILE` and `--json -` give attributes; those of the command line come on top."""
    Path("ada.json").write_text('{"name": "Ada", "job_title": "CTO"}')
    (ada,) = lines(nex("records", "create", "person", "--json", "@ada.json", "job_title=CEO"))
    assert ada["attributes"] == {"name": "Ada", "job_title": "CEO"}
    (acme,) = lines(nex("records", "create", "company", "--json", "-", input='{"name": "Acme", "employee_count": 12}'))
    assert acme["attributes"] == {"name": "Acme", "employee_count": 12}


def test_a_listing_stops_at_its_limit_and_says_so() -> None:
    """Rows beyond `--limit` are not printed, which is told on stderr; `--all` prints them."""
    rows = "".join(json.dumps({"name": f"P {n}", "email_addresses": [f"p{n}@x.io"]}) + "\n" for n in range(120))
    Path("people.jsonl").write_text(rows)
    nex("records", "import", "person", "people.jsonl", "--match-on", "email_addresses")
    some = nex("records", "list", "person")
    assert (len(lines(some)), some.stderr) == (100, "Only the first 100 are shown; --all shows all.\n")
    every = nex("records", "list", "person", "--all", "--sort", "created_at")
    assert (len({row["id"] for row in lines(every)}), every.stderr) == (120, "")
    exact = nex("records", "list", "person", "-n", "120")
    assert (len(lines(exact)), exact.stderr) == (120, "")


@pytest.mark.parametrize("output", ["json", "jsonl", "csv", "table"])
def test_each_format_holds_the_same_rows(output: str) -> None:
    """JSON, JSON Lines, CSV and a table show every row, text for text."""
    people = [('Ada, "the" Park', "a@x.io"), ("Bo\nLind", "b@x.io")]
    for name, email in people:
        nex("records", "create", "person", f"name={name}", f"email_addresses={email}")
    done = nex("records", "list", "person", "--output", output, "--sort", "created_at")
    if output == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [(row["name"], json.loads(row["email_addresses"])[0]) for row in rows] == people
    elif output == "table":
        head, *body = done.stdout.splitlines()
        assert head.split()[:3] == ["ID", "NAME", "EMAIL_ADDRESSES"]
        assert [line.split("  ")[1].strip() for line in body] == ['Ada, "the" Park', "Bo\\nLind"]
    else:
        rows = json.loads(done.stdout) if output == "json" else lines(done)
        assert [(row["attributes"]["name"], row["attributes"]["email_addresses"][0]) for row in rows] == people


def test_what_is_listed_as_csv_can_be_imported() -> None:
    """CSV on standard output has the columns and cells that `records import` reads."""
    nex("records", "create", "person", *ADA, 'location:={"city": "Oslo"}')
    Path("people.csv").write_text(nex("records", "list", "person", "-o", "csv").stdout)
    nex("objects", "create", "friend", "Friend")
    for slug, kind in (("email_addresses", "email"), ("job_title", "text"), ("location", "location")):
        nex("objects", "add-attribute", "friend", slug, kind, *(("--several",) * (kind == "email")))
    nex("records", "import", "friend", "people.csv", "--match-on", "name")
    (friend,) = lines(nex("records", "list", "friend"))
    (person,) = lines(nex("records", "list", "person"))
    assert friend["attributes"] == person["attributes"]


def test_columns_are_those_asked_for() -> None:
    """`--columns` chooses the columns of CSV and tables, and their order."""
    nex("records", "create", "person", *ADA)
    assert (
        nex("records", "list", "person", "-o", "csv", "--columns", "job_title,name").stdout
        == "job_title,name\nCEO,Ada Park\n"
    )


def test_deleting_several_goes_on_after_one_that_fails() -> None:
    """What cannot be deleted is told; the others are gone, and the status says that only a part was done."""
    first, second = (made("records", "create", "person", f"name=P {n}") for n in (1, 2))
    done = nex("records", "delete", first, "1", second, "--yes", status=4)
    assert done.stderr.startswith("1: deleteRecord")
    assert nex("records", "list", "person").stdout == ""
    nex("records", "delete", "1", "2", "--yes", status=1)


def test_nothing_is_deleted_unasked() -> None:
    """Where nobody can be asked, a command that deletes for good wants `--yes`."""
    record = made("records", "create", "person", "name=Ada")
    for command in (("records", "delete", record), ("objects", "delete", "person"), ("tasks", "delete", "1")):
        assert "--yes" in nex(*command, status=2).stderr
    assert len(lines(nex("records", "list", "person"))) == 1


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_objects_and_their_attributes() -> None:
    """An object is created, gets attributes, is shown with their rules, and deleted."""
    nex("objects", "create", "deal", "Deal", "--plural", "Deals")
    nex("objects", "add-attribute", "deal", "stage", "select", "--choice", "Open", "--choice", "Won", "--required")
    shown = nex("objects", "get", "deal", "-o", "table").stdout
    assert "stage" in shown
    assert "required" in shown
    assert "Won" in shown
    assert [row["slug"] for row in lines(nex("objects", "list"))] == ["person", "company", "deal"]
    assert "type must be one of text, number" in nex("objects", "add-attribute", "deal", "x", "colour", status=2).stderr
    nex("objects", "delete", "deal", "--yes")
    assert "deal" not in nex("objects", "list").stdout


def test_lists_and_their_members() -> None:
    """A record is put on a list, listed as a member, taken off, and stays."""
    ada = made("records", "create", "person", *ADA)
    friends = made("lists", "create", "person", "friends", "Friends")
    assert [row["slug"] for row in lines(nex("lists", "list", "person"))] == ["friends"]
    member = made("lists", "add", friends, ada)
    assert [row["id"] for row in lines(nex("lists", "members", friends))] == [member]
    nex("lists", "remove", friends, member)
    assert nex("lists", "members", friends).stdout == ""
    nex("lists", "delete", friends, "--yes")
    assert len(lines(nex("records", "get", ada))) == 1


def test_tasks() -> None:
    """A task is created with its options, found by them, done, and archived."""
    ada = made("records", "create", "person", *ADA)
    task = made("tasks", "create", "Call Ada", "--due", "2026-12-01T09:30:00+02:00", "--priority", "high", "--record", ada)
    made("tasks", "create", "Something else")
    (found,) = lines(nex("tasks", "list", "--record", ada, "--open"))
    assert (found["id"], found["due_date"], found["priority"]) == (task, "2026-12-01T07:30:00Z", "high")
    nex("tasks", "update", task, "--done")
    assert [row["id"] for row in lines(nex("tasks", "list", "--done"))] == [task]
    assert "nothing was given" in nex("tasks", "update", task, status=2).stderr
    assert "is no date" in nex("tasks", "create", "x", "--due", "soon", status=2).stderr
    nex("tasks", "delete", task, "--yes")
    assert nex("tasks", "list", "--done").stdout == ""


def test_notes() -> None:
    """A note takes its text from standard input, belongs to a record, is changed and archived."""
    ada = made("records", "create", "person", *ADA)
    note = made("notes", "create", "Met", "--record", ada, "--content", "Tea")
    (changed,) = lines(nex("notes", "update", note, "--content", "-", input="Coffee\nand cake"))
    assert changed["content"] == "Coffee\nand cake"
    assert [row["id"] for row in lines(nex("notes", "list", "--record", ada))] == [note]
    nex("notes", "delete", note, "--yes")
    assert nex("notes", "list").stdout == ""


def test_search_and_timeline() -> None:
    """Hits come best first, of every kind; a timeline tells what happened to a record."""
    ada = made("records", "create", "person", *ADA)
    made("records", "create", "company", "name=Adamant")
    hits = lines(nex("search", "ada"))
    assert {(hit["type"], hit["primary_value"]) for hit in hits} == {("person", "Ada Park"), ("company", "Adamant")}
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    nex("records", "update", ada, "job_title=CTO")
    assert [event["event_type"] for event in lines(nex("timeline", ada))] == ["updated", "created"]


def test_texts_go_in_and_answers_come_out() -> None:
    """A text is taken in, waited for, listed as an insight, and found in an answer."""
    (artifact,) = lines(nex("remember", "Ada Park <ada@x.io> asked for a demo."))
    assert (artifact["status"], artifact["result"]["insights_created"]) == ("completed", 1)
    (insight,) = lines(nex("insights", "list", "--last", "1h"))
    assert insight["content"] == "Ada Park <ada@x.io> asked for a demo."
    assert lines(nex("insights", "list", "--from", "2026-01-01", "--to", "2100-01-01")) == [insight]
    (answer,) = lines(nex("ask", input="Who asked for a demo?"))
    assert "asked for a demo" in answer["answer"]
    assert nex("ask", "Who asked for a demo?", "-o", "table").stdout.startswith(answer["answer"])


def test_files_are_remembered_one_by_one() -> None:
    """Each file becomes an artifact; one that is no text fails alone, and the status says so; a journal goes on."""
    Path("a.txt").write_text("Ada signed.")
    Path("b.txt").write_text("Bob signed.")
    Path("c.bin").write_bytes(b"\xff\x00")
    done = nex("remember", "-f", "a.txt", "-f", "b.txt", "-f", "c.bin", "--journal", "j", status=4)
    rows = {row["file"]: row for row in lines(done)}
    assert [rows[name]["status"] for name in ("a.txt", "b.txt", "c.bin")] == ["completed", "completed", "failed"]
    assert rows["c.bin"]["error"] == "is no text in UTF-8"
    assert [row["file"] for row in lines(nex("remember", "-f", "a.txt", "-f", "b.txt", "--journal", "j"))] == []
    assert len(lines(nex("insights", "list"))) == 2
    assert "no file 'gone'" in nex("remember", "-f", "a.txt", "-f", "gone", status=2).stderr


def test_an_ai_list_is_waited_for_and_found_again() -> None:
    """The job is waited for; without waiting its id is printed, by which it is found later."""
    nex("records", "create", "company", "name=Techflow", "description=tech of all kinds")
    (row,) = lines(nex("ai-list", "all companies in tech", "--type", "company"))
    assert row["name"] == "Techflow"
    (job,) = lines(nex("ai-list", "all companies in tech", "--type", "company", "--wait", "0"))
    assert lines(nex("ai-list", "--job", job["job_id"]))[0]["name"] == "Techflow"
    nex("ai-list", status=2)


def test_any_request_can_be_sent() -> None:
    """`api` sends what it is told, and prints the JSON that comes back."""
    nex("api", "post", "/v1/tasks", "--data", '{"title": "Call"}')
    reply = json.loads(nex("api", "GET", "/v1/tasks", "-q", "limit=5", "-q", "search=Call").stdout)
    assert [row["title"] for row in reply["data"]] == ["Call"]
    assert nex("api", "GET", "v1/tasks/1", status=1).stderr.startswith("Error: GET request (GET /v1/tasks/1): ")
    assert "no JSON" in nex("api", "POST", "/v1/tasks", "--data", "{", status=2).stderr
    assert "NAME=VALUE" in nex("api", "GET", "/v1/tasks", "-q", "limit", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("records", "create", "person"), "no attributes were given"),
        (("records", "create", "person", "name"), "is not SLUG=VALUE"),
        (("records", "create", "person", "name:={"), "no JSON"),
        (("records", "create", "person", "--json", "[]"), "must be a JSON object"),
        (("records", "create", "person", "--json", "@gone"), "cannot read 'gone'"),
        (("records", "get", ".."), "record_id"),
        (("insights", "list", "--from", "2026-01-01"), "go together"),
        (("insights", "list", "--last", "a while"), "duration"),
        (("insights", "listen", "--forward-to", "ftp://x"), "is no http"),
        (("remember", "x", "-f", "y"), "not both"),
        (("remember", "x", "--journal", "j"), "goes with --file"),
        (("types", "--check", "gone.py"), "cannot read 'gone.py'"),
        (("search", " "), "query"),
    ],
)  # fmt: skip
def test_mistakes_are_usage_errors(arguments: tuple[str, ...], said: str) -> None:
    """What cannot be right ends with status 2 before anything is sent, and says what is wrong."""
    assert said in nex(*arguments, status=2).stderr

"""Each command against a server that has been reached: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager

import httpx
import pytest

from ragworks.cli import main
from ragworks.cli.options import Place
from ragworks.client import Client
from ragworks.errors import ServerUnreachable
from ragworks.local_transport import LocalTransport


@pytest.fixture(autouse=True)
def _reached(server, monkeypatch, pauses, tmp_path):
    """Every command reaches the fake server."""

    @asynccontextmanager
    async def client(self, *, create=False):
        transport = LocalTransport(server.application)
        async with httpx.AsyncClient(base_url="http://fake", transport=transport) as http:
            yield Client(http, "http://fake", sleep=pauses)

    monkeypatch.setattr(Place, "client", client)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys):
    def run(*arguments, code=0):
        assert main(arguments) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "docs"
    place.mkdir()
    for name in ("a.md", "bad.md", "same.md"):
        (place / name).write_text(name)
    return place


def test_ingest_reports_failures_with_name_code_and_message_and_fails(printed, folder):
    out = printed("ingest", str(folder), code=1)
    assert "2 of 3 documents are in collection 'default' (1 unchanged, 1 failed)" in out.out
    assert "bad.md  parsing  corrupt_document  it is broken" in out.out


def test_ingest_succeeds_when_every_document_is_in(printed, folder):
    (folder / "bad.md").unlink()
    assert "2 of 2 documents" in printed("ingest", str(folder)).out


def test_ingest_prints_one_json_document_and_nothing_else(printed, folder):
    out = printed("ingest", str(folder), "--json", "-m", "year=2026", code=1)
    found = json.loads(out.out)
    assert found["file_counts"] == {
        "total": 3,
        "accepted": 3,
        "completed": 2,
        "unchanged": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert found["failed"] == [
        {"name": "bad.md", "code": "corrupt_document", "message": "it is broken", "stage": "parsing"}
    ]
    assert out.err == ""


def test_ingest_of_an_empty_folder_says_so(printed, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no file to ingest in empty" in printed("ingest", "empty", code=1).err


def test_ingest_of_a_folder_without_a_single_file_names_a_few_of_what_is_there(printed, tmp_path):
    """`ragworks ingest /dev` answered with every device of the machine."""
    (tmp_path / "pipes").mkdir()
    for number in range(7):
        os.mkfifo(tmp_path / "pipes" / f"{number}")
    err = printed("ingest", "pipes", code=1).err
    assert err.count("not a regular file") == 5
    assert "; and 2 more)" in err


def test_ingest_into_a_server_that_goes_away_says_how_to_go_on(printed, folder, monkeypatch):
    """At a restart of the server nothing told whether what had gone in was lost, or would be in twice."""

    async def submit(*_, **__):
        raise ServerUnreachable("the server at http://fake cannot be reached")

    monkeypatch.setattr(Client, "submit_files", submit)
    err = printed("ingest", str(folder), code=1).err
    assert "server_unreachable: the server at http://fake cannot be reached" in err
    assert "what was accepted is on disk" in err
    assert "run the same command again" in err


def test_ingest_names_the_links_that_it_did_not_follow(printed, folder, tmp_path):
    (tmp_path / "outside.md").write_text("x")
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    assert f"skipped: {folder}/link.md: a link out of the folder" in printed("ingest", str(folder), code=1).err


def test_search_prints_document_page_score_and_passage(printed, server):
    lines = printed("search", "how long?", "--mode", "lexical", "--filter", '{"type": "eq"}').out.splitlines()
    assert lines[1].split() == ["1", "0.500", "a.md", "3", "some", "[1]", "text"]
    assert server.asked == [
        {"query": "how long?", "top_k": 10, "mode": "lexical", "rerank": False, "filter": {"type": "eq"}}
    ]


def test_search_that_finds_nothing_says_so_on_stderr(printed):
    out = printed("search", "nothing")
    assert (out.out, out.err) == ("", "nothing found in collection 'default'\n")


def test_ask_streams_the_answer_and_then_its_citations(printed):
    out = printed("ask", "how long?")
    assert out.out == "Two years. [1]\n\n[1] a.md, page 3: “Two years.”\n"


def test_ask_prints_the_whole_answer_as_json(printed, server):
    found = json.loads(printed("ask", "how long?", "--top-k", "3", "--json").out)
    assert found["citations"][0]["document_id"] == "a.md"
    assert server.asked == [{"question": "how long?", "top_k": 3}]


def test_jobs_lists_and_shows_and_acts(printed, folder):
    printed("ingest", str(folder), code=1)
    assert "job-1" in printed("jobs").out
    assert json.loads(printed("jobs", "list", "--json").out)["data"][0]["id"] == "job-1"
    shown = printed("jobs", "job-1").out
    assert "2 completed, 1 failed" in shown
    assert "corrupt_document: it is broken" in shown
    assert printed("jobs", "show", "job-1").out == shown
    for verb in ("retry", "cancel"):
        assert json.loads(printed("jobs", verb, "job-1", "--json").out)["id"] == "job-1"


def test_dead_letters_of_all_jobs_are_listed_with_their_reason_and_queued_again(printed, folder):
    assert "no dead letters" in printed("jobs", "dead").err
    printed("ingest", str(folder), code=1)
    assert "corrupt_document: it is broken" in printed("jobs", "dead").out
    [dead] = json.loads(printed("jobs", "dead", "--json").out)["data"]
    assert (dead["job_id"], dead["error"]["code"]) == ("job-1", "corrupt_document")
    assert printed("jobs", "retry", "--all").out == "queued 1 documents again; 2 had no room, run it again later\n"
    assert json.loads(printed("jobs", "retry", "--all", "--json").out) == {"queued": 1, "left": 2}


def test_a_retry_names_one_job_or_all(printed):
    assert "name one job" in printed("jobs", "retry", code=2).err
    assert "name one job" in printed("jobs", "retry", "job-1", "--all", code=2).err


def test_a_job_that_is_not_there_is_one_line_and_exit_code_one(printed):
    assert printed("jobs", "nope", code=1).err == "job_not_found: there is no such job\n"


def test_the_cache_shows_what_it_saves_by_tier_and_can_be_emptied(printed):
    lines = printed("cache", "stats").out.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["memory", "3", "of", "10", "2.0", "KiB", "5"],
        ["stored", "vectors", "4"],
    ]
    assert lines[3] == "hit rate 90.0%; went to the model (m:1): 1 texts"
    assert json.loads(printed("cache", "stats", "--json").out)["stored_hits"] == 4
    assert printed("cache", "clear").err.strip() == "forgot 3 vectors"
    assert json.loads(printed("cache", "clear", "--json").out) == {"cleared": 3}


def test_scale_prints_the_replicas_and_wants_a_number_and_a_server(printed, server):
    fake = ("--url", "http://fake")
    out = printed("scale", "embeddings_service", "3", *fake)
    assert "embeddings_service-2" in out.out
    assert "embeddings_service has 3 replicas" in out.err
    assert json.loads(printed("scale", "embeddings_service", "2", "--json", *fake).out)["name"] == "embeddings_service"
    assert "scaled by its load" in printed("scale", "embeddings_service", "auto", *fake).err
    assert server.scaled[-1] == {"mode": "auto"}
    assert (
        "a number of replicas or auto, found 'two'" in printed("scale", "embeddings_service", "two", *fake, code=2).err
    )
    assert "no server runs on" in printed("scale", "embeddings_service", "2", code=1).err


def test_doctor_fails_when_something_differs(printed, server):
    assert printed("doctor").out.startswith("healthy: 1 documents, 2 chunks")
    server.problems = ["1 vector without a chunk"]
    assert "- 1 vector without a chunk" in printed("doctor", code=1).out
    assert json.loads(printed("doctor", "--json", code=1).out)["problems"] == ["1 vector without a chunk"]


def test_collections_are_listed_and_made(printed):
    printed("collections", "create", "mine")
    assert [one["name"] for one in json.loads(printed("collections", "list", "--json").out)["data"]] == [
        "default",
        "mine",
    ]
    assert "mine        (empty)" in printed("collections", "list").out


def test_eval_scores_a_set_and_says_which_documents_are_not_in(printed, tmp_path, server):
    corpus = [{"_id": "a.md", "title": "A", "text": "x"}, {"_id": "bad.md", "title": "B", "text": "y"}]
    place = tmp_path / "tiny"
    place.mkdir()
    (place / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (place / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "t", "history": ["user: h"]}))
    (place / "qrels.tsv").write_text("q\ta.md\t1\n")
    out = printed("eval", str(place), "--data", "d")
    assert "tiny  1          2          1.0000   1.0000" in out.out
    assert "tiny: 1 of 2 documents could not be indexed" in out.err
    found = json.loads(printed("eval", str(place), "--data", "d", "--json", "--no-history").out)
    assert found["mean"]["ndcg_at_10"] == 1.0
    assert set(found["sets"][0]["latency_ms"]) == {"p50", "p95", "p99"}
    asked = {"query": "t", "top_k": 100, "mode": "hybrid", "group_by": "document"}
    assert server.asked == [asked | {"history": [{"role": "user", "content": "h"}]}, asked]


def test_an_interrupted_command_says_so_and_exits_with_130(printed, monkeypatch):
    async def interrupt(self, collection, body):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "search", interrupt)
    assert printed("search", "x", code=130).err == "interrupted\n"

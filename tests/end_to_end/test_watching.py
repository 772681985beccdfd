"""Folders that are followed: real servers, real files, and the operating system's own word on changes."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from end_to_end.test_cli import DEADLINE_S, Served, environment, run

FOX = "The battery of the Fox lasts two years.\n"
DELIVERY = "Parcels leave the warehouse before noon.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "fox.md").write_text(FOX)
    (docs / "delivery.md").write_text(DELIVERY)
    return tmp_path


@pytest.fixture
def servers() -> Iterator[list[Served]]:
    started: list[Served] = []
    yield started
    for one in started:
        assert one.stop() == 0, "".join(one.lines)


def documents(server: Served, **query: str) -> dict[str, dict[str, Any]]:
    listed = httpx.get(f"{server.url}/v1/collections/default/documents", params=query, timeout=30).json()["data"]
    return {one["id"]: one for one in listed}


def found(server: Served, words: str) -> set[str]:
    body = {"query": words, "mode": "lexical"}
    results = httpx.post(f"{server.url}/v1/collections/default/search", json=body, timeout=30).json()["results"]
    return {one["document_id"] for one in results}


def worked(server: Served) -> list[str]:
    """What was chunked and embedded so far."""
    counts = ("rag_cache_misses_total", "rag_cache_hits_total", 'rag_stage_duration_seconds_count{stage="chunking"}')
    lines = [line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if line.startswith(counts)]
    assert len(lines) == len(counts) + 1, "two tiers of the cache"
    return lines


@pytest.mark.timeout(120)
def test_a_served_folder_is_followed_from_a_new_file_to_a_deleted_one(folder: Path, servers: list[Served]) -> None:
    docs = folder / "docs"
    servers.append(server := Served(folder, "docs"))
    server.wait_for("ingested docs: 2 of 2 documents are in (0 unchanged, 0 failed)")
    assert {one["origin"] for one in documents(server).values()} == {str(docs)}

    (docs / "deep").mkdir()
    (docs / "deep" / "crane.md").write_text("The crane lifts forty tons.\n")
    server.wait_for("docs: 1 new, 0 changed, 0 gone")
    assert found(server, "crane") == {"deep/crane.md"}

    (docs / "fox.md").write_text("The battery of the Fox lasts three winters.\n")
    server.wait_for("docs: 0 new, 1 changed, 0 gone")
    assert (found(server, "winters"), found(server, "years")) == ({"fox.md"}, set())

    (docs / "delivery.md").unlink()
    server.wait_for("docs: 0 new, 0 changed, 1 gone")
    assert found(server, "warehouse") == set()
    assert sorted(documents(server, origin=str(docs))) == ["deep/crane.md", "fox.md"]

    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    server.wait_for("failed: broken.pdf: corrupt_document")
    (docs / "late.md").write_text("The ferry sails at dawn.\n")
    server.wait_for("docs: 1 new, 0 changed, 0 gone")
    assert found(server, "ferry") == {"late.md"}


@pytest.mark.timeout(120)
def test_at_every_moment_of_a_rename_the_content_is_found_and_nothing_is_read_or_embedded_again(
    folder: Path, servers: list[Served]
) -> None:
    servers.append(server := Served(folder, "docs"))
    server.wait_for("ingested docs: 2 of 2")
    before = worked(server)
    seen: list[set[str]] = []
    renamed = threading.Event()

    def search() -> None:
        while not renamed.is_set():
            seen.append(found(server, "battery"))

    searching = threading.Thread(target=search)
    searching.start()
    try:
        (folder / "docs" / "fox.md").rename(folder / "docs" / "foxes.md")
        server.wait_for("docs: 1 new, 0 changed, 1 gone")
    finally:
        renamed.set()
        searching.join(DEADLINE_S)
    assert all(seen)
    assert {name for names in seen for name in names} <= {"fox.md", "foxes.md"}
    assert found(server, "battery") == {"foxes.md"}
    assert len(documents(server)) == 2
    assert worked(server) == before


@pytest.mark.timeout(120)
def test_what_happened_while_the_server_was_down_is_made_up_for_at_its_start(
    folder: Path, servers: list[Served]
) -> None:
    docs = folder / "docs"
    first = Served(folder, "docs")
    first.wait_for("ingested docs: 2 of 2")
    httpx.post(
        f"{first.url}/v1/collections/default/documents",
        json={"documents": [{"id": "note", "text": "A note that came over HTTP."}]},
    )
    assert first.stop() == 0
    (docs / "fox.md").rename(docs / "foxes.md")
    (docs / "delivery.md").unlink()
    (docs / "crane.md").write_text("The crane lifts forty tons.\n")
    servers.append(server := Served(folder, "docs"))
    server.wait_for("ingested docs: 2 of 2 documents are in (0 unchanged, 0 failed), 2 gone")
    assert sorted(documents(server)) == ["crane.md", "foxes.md", "note"]


@pytest.mark.timeout(120)
def test_a_folder_that_is_taken_away_keeps_its_documents_and_is_followed_again_when_it_is_back(
    folder: Path, servers: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = folder / "docs"
    servers.append(server := Served(folder, "docs"))
    server.wait_for("ingested docs: 2 of 2")
    docs.rename(folder / "unmounted")
    server.wait_for("docs: the folder is gone; its documents stay until it is back")
    assert found(server, "battery") == {"fox.md"}
    (folder / "unmounted" / "delivery.md").unlink()
    (folder / "unmounted").rename(docs)
    server.wait_for("docs: 0 new, 0 changed, 1 gone")
    assert sorted(documents(server)) == ["fox.md"]
    (docs / "crane.md").write_text("The crane lifts forty tons.\n")
    server.wait_for("docs: 1 new, 0 changed, 0 gone")


def test_without_watching_a_served_folder_is_taken_in_once(folder: Path, servers: list[Served]) -> None:
    servers.append(server := Served(folder, "docs", "--no-watch"))
    assert "watching" not in server.wait_for("ingested docs: 2 of 2 documents are in")
    assert {one["origin"] for one in documents(server).values()} == {str(folder / "docs")}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("served", [True, False], ids=["through a server", "in this process"])
def test_ingest_with_watch_follows_until_ctrl_c(folder: Path, servers: list[Served], served: bool) -> None:
    if served:
        servers.append(Served(folder))
    command = [sys.executable, "-m", "ragworks", "ingest", "docs", "--watch", "--priority", "low", "-m", "year=2026"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    lines: queue.Queue[str] = queue.Queue()
    assert process.stderr
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stderr or ()])
    reader.start()
    try:
        assert "ingested docs: 2 of 2 documents are in" in lines.get(timeout=DEADLINE_S)
        (folder / "docs" / "crane.md").write_text("The crane lifts forty tons.\n")
        assert lines.get(timeout=DEADLINE_S) == "docs: 1 new, 0 changed, 0 gone\n"
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(DEADLINE_S)
        reader.join(DEADLINE_S)
        process.stderr.close()
    assert code == 130
    assert lines.get(timeout=DEADLINE_S) == "no longer watching\n"
    listed = json.loads(run(folder, "documents", "list", "--json")[0])["data"]
    assert {one["id"]: one["metadata"] for one in listed} == {
        name: {"year": 2026} for name in ("crane.md", "delivery.md", "fox.md")
    }


@pytest.mark.parametrize("arguments", [["docs/fox.md"], ["docs", "--json"], ["docs", "--no-wait"]])
def test_watch_says_what_it_does_not_go_with(folder: Path, arguments: list[str]) -> None:
    assert "goes with folders only" in run(folder, "ingest", *arguments, "--watch", code=2)[1]

"""A 50-page document submitted while a folder of 20,000 documents is going in: how much later can it be found?

Usage: python benchmarks/fairness.py [--documents 20000] [--repeats 5] [--model bundled|hashing] [--json]. Measured from
the request to the first search that finds the document's last page; first on the idle server, then, once the queue is
as full as the folder may make it, in the folder's own collection and in another one, in turns. Exit code 1 if a median
is more than 5 s above that of the idle server. Caveats: `ragworks ingest`, which feeds the folder, and the probe share
the machine's cores with the server; the folder's documents are generated, short, and all different.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
from corpus import ready, running
from fpdf import FPDF

from ragworks.bench.machine import commit, machine

LIMIT_S = 5.0
PAGES = 50
WORDS_ON_A_PAGE = 250
POLL_S = 0.05
FULL = 0.9  # of the queue's places: bulk leaves a twentieth to others
DEADLINE_S = 600.0
PLACES = {"idle": "default", "same collection": "default", "another collection": "letters"}
STEMS = ("mar", "ten", "lo", "vi", "gra", "sol", "pen", "dur", "qua", "fel", "nor", "tis", "kem", "ose", "pli", "zan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", choices=("bundled", "hashing"), default="bundled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragworks-fairness-") as folder:
        found = measured(Path(folder), given)
    print(json.dumps(found, indent=2) if given.json else table(found))
    sys.exit(0 if found["met"] else 1)


def measured(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    rng = Random(given.seed)
    write_folder(folder / "folder", given.documents, rng)
    with running(folder, given.model) as server:
        url = asyncio.run(ready(server, folder / "data"))
        with httpx.Client(base_url=url, timeout=60) as client:
            client.post("/v1/collections", json={"name": "letters"}).raise_for_status()
            seconds: dict[str, list[float]] = {name: [] for name in PLACES}
            for _ in range(given.repeats):
                seconds["idle"].append(until_found(client, "default", rng))
            with feeding(folder, url) as feed:
                until_full(client)
                began, before = time.perf_counter(), ended(client)
                for _ in range(given.repeats):
                    for name in list(PLACES)[1:]:
                        seconds[name].append(until_found(client, PLACES[name], rng))
                rate = (ended(client) - before) / (time.perf_counter() - began)
                still_feeding = feed.poll() is None
    medians = {name: round(statistics.median(found), 2) for name, found in seconds.items()}
    return {
        "machine": machine(),
        "commit": commit(),
        "model": given.model,
        "documents": given.documents,
        "still_feeding_at_the_end": still_feeding,
        "folder_documents_per_s": round(rate, 1),
        "seconds": {name: [round(one, 2) for one in found] for name, found in seconds.items()},
        "median_s": medians,
        "met": still_feeding and all(one - medians["idle"] <= LIMIT_S for one in medians.values()),
    }


def write_folder(folder: Path, documents: int, rng: Random) -> None:
    for at in range(documents):
        part = folder / f"{at // 1000:03}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{at:05}.txt").write_text(prose(rng, rng.randint(40, 120)), encoding="utf-8")


def prose(rng: Random, words: int) -> str:
    """Words that nobody has used before, mostly, in sentences of ten."""
    made = ["".join(rng.choices(STEMS, k=rng.randint(1, 3))) for _ in range(words)]
    return ". ".join(" ".join(made[at : at + 10]).capitalize() for at in range(0, words, 10)) + "."


def letter(rng: Random, mark: str) -> bytes:
    """A PDF of so many pages; ``mark`` is the last word of the last."""
    made = FPDF()
    made.set_font("Helvetica", size=11)
    for page in range(PAGES):
        made.add_page()
        text = prose(rng, WORDS_ON_A_PAGE) + (f" {mark}" if page == PAGES - 1 else "")
        made.multi_cell(0, 6, text, new_x="LMARGIN", new_y="NEXT")
    return bytes(made.output())


def until_found(client: httpx.Client, collection: str, rng: Random) -> float:
    """Seconds from the request to the first search that finds the last page."""
    mark = f"zq{rng.getrandbits(60):x}"
    content = letter(rng, mark)
    began = time.perf_counter()
    files = {"files": (f"{mark}.pdf", content, "application/pdf")}
    accepted = client.post(f"/v1/collections/{collection}/documents", files=files)
    accepted.raise_for_status()
    query = {"query": mark, "mode": "lexical", "top_k": 1}
    while time.perf_counter() - began < DEADLINE_S:
        found = client.post(f"/v1/collections/{collection}/search", json=query).json()
        if any(one["document_id"] == f"{mark}.pdf" for one in found.get("results", [])):
            return time.perf_counter() - began
        time.sleep(POLL_S)
    raise SystemExit(f"{accepted.json()} was not found within {DEADLINE_S} s")


@contextmanager
def feeding(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ragworks", "ingest", str(folder / "folder"), "--url", url]
    with (folder / "feed.log").open("wb") as log:
        feed = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield feed
    finally:
        feed.terminate()
        feed.wait()


def stats(client: httpx.Client) -> dict[str, Any]:
    services = client.get("/v1/services").json()["data"]
    return dict(next(one for one in services if one["name"] == "document_processor")["stats"])


def ended(client: httpx.Client) -> int:
    return int(stats(client)["documents_processed"])


def until_full(client: httpx.Client) -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < DEADLINE_S:
        if stats(client)["queue_size"] >= FULL * 1000:
            return
        time.sleep(0.2)
    raise SystemExit("the folder did not fill the queue: give more --documents")


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, model {found['model']}"]
    lines += [f"{name:20} median {found['median_s'][name]:6.2f} s   {found['seconds'][name]}" for name in PLACES]
    lines.append(f"beside {found['folder_documents_per_s']} documents a second of the folder")
    lines.append("within 5 s of idle" if found["met"] else "NOT within 5 s of idle")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

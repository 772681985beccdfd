"""Peak memory of the server and of its workers while they take in one large document.

Usage: python benchmarks/memory.py [--text-mb 200] [--pages 500] [--json]. A text of that size with the hashing model,
then a PDF of that many pages with the bundled one, each on a new server: resident memory of the server and of its
largest child, every 50 ms, beside the server's at rest before. Exit code 1 if a document was not indexed, or not found
afterwards. Caveats: the text is made of random words in paragraphs, so it says nothing of hostile ones; the server's
memory includes its search indexes, which do grow with the number of passages: its memory after a restart shows those.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from corpus import DEADLINE_S, ENDED, ready, running
from fpdf import FPDF

from ragworks.bench.machine import commit, machine

EVERY_S = 0.05
SETTINGS = {"DOCUMENT_PROCESSOR__MAX_DOCUMENT_BYTES": str(1024**3)}  # the default is 100 MB
NEEDLE = "The lighthouse keeper of Vardø paints his door turquoise."


@dataclass
class Peaks:
    """Resident bytes, the largest seen."""

    server: int = 0
    child: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-mb", type=int, default=200)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragworks-memory-") as folder:
        text, pages = Path(folder) / "long.txt", Path(folder) / "long.pdf"
        write_text(text, given.text_mb * 10**6)
        write_pdf(pages, given.pages)
        rows = [measure(text, "hashing"), measure(pages, "bundled")]
    found = {"machine": machine(), "commit": commit(), "rows": rows}
    print(json.dumps(found, indent=2) if given.json else table(found))
    sys.exit(0 if all(row["status"] == "completed" and row["found"] for row in rows) else 1)


def write_text(path: Path, size: int) -> None:
    rng, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{NEEDLE}\n\n")
        while written < size:
            written += file.write(" ".join(paragraph(rng)) + ".\n\n")


def write_pdf(path: Path, pages: int) -> None:
    rng, pdf = random.Random(0), FPDF()
    pdf.set_font("Helvetica", size=11)
    for page in range(pages):
        pdf.add_page()
        lines = [NEEDLE.replace("ø", "o")] if page == 0 else []
        pdf.multi_cell(0, 6, "\n\n".join([*lines, *(" ".join(paragraph(rng)) + "." for _ in range(5))]))
    pdf.output(str(path))


def paragraph(rng: random.Random) -> Iterator[str]:
    for _ in range(rng.randint(30, 90)):
        yield "".join(rng.choices(("ba", "do", "ke", "li", "mu", "ne", "po", "ra", "si", "tu"), k=rng.randint(1, 4)))


def measure(file: Path, model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ragworks-memory-") as folder:
        with running(Path(folder), model, **SETTINGS) as server:
            url = asyncio.run(ready(server, Path(folder) / "data"))
            rest = psutil.Process(server.pid).memory_info().rss
            with watched(server.pid) as peaks:
                started = time.perf_counter()
                job = submit(url, file)
                seconds = time.perf_counter() - started
            hits = httpx.post(
                f"{url}/v1/collections/default/search", json={"query": NEEDLE, "top_k": 3}, timeout=DEADLINE_S
            ).json()["results"]
            chunks = httpx.get(f"{url}/v1/collections/default/documents", timeout=DEADLINE_S).json()["data"]
        with running(Path(folder), model, **SETTINGS) as server:
            asyncio.run(ready(server, Path(folder) / "data"))
            indexes = psutil.Process(server.pid).memory_info().rss
    document = job["documents"][0]
    return {
        "file": file.name,
        "size_mb": round(file.stat().st_size / 1e6, 1) if file.exists() else None,
        "model": model,
        "status": document["status"],
        "error": document["error"],
        "found": any(hit["text"].startswith(NEEDLE[:20]) for hit in hits),
        "chunks": sum(one["chunk_count"] for one in chunks),
        "seconds": round(seconds, 1),
        "server_at_rest_mb": round(rest / 1e6),
        "server_peak_mb": round(peaks.server / 1e6),
        "worker_peak_mb": round(peaks.child / 1e6),
        "server_restarted_mb": round(indexes / 1e6),
    }


def submit(url: str, file: Path) -> dict[str, Any]:
    """The job, once it has ended."""
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        with file.open("rb") as stream:
            accepted = client.post("/v1/collections/default/documents", files=[("files", (file.name, stream))])
        accepted.raise_for_status()
        job: dict[str, Any] = {}
        while job.get("status") not in ENDED:
            time.sleep(0.2)
            job = client.get(accepted.headers["location"]).json()
        return job


@contextmanager
def watched(pid: int) -> Iterator[Peaks]:
    peaks, server = Peaks(), psutil.Process(pid)

    def watch() -> None:
        while not peaks.stop.wait(EVERY_S):
            peaks.server = max(peaks.server, server.memory_info().rss)
            for child in server.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    peaks.child = max(peaks.child, child.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        peaks.stop.set()
        thread.join()


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}"]
    for row in found["rows"]:
        lines += [f"{row['file']}:", *(f"  {key:22}{value}" for key, value in row.items() if key != "file")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

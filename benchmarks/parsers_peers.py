"""The parsers that are compared, and the child process that runs one of them on one file.

Usage: python benchmarks/parsers_peers.py PARSER FILE RUNS ANSWER. Imports are not timed; the text of the last run and
the CPU time of each run go to ANSWER as JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[Path], str]
ANY = "pdf docx pptx xlsx html epub eml msg csv md txt"
LONG_S = 2.0  # a file that takes this long is not read again


@dataclass(frozen=True, slots=True)
class Parser:
    """``start`` imports the library and returns what reads a file."""

    start: Callable[[], Read]
    package: str
    formats: str = ANY


def ragworks() -> Read:
    from ragworks.text.clean import clean
    from ragworks.text.parse import parse

    return lambda path: clean(parse(path.read_bytes(), path.name)).text


def markitdown() -> Read:
    converter = importlib.import_module("markitdown").MarkItDown(enable_plugins=False)
    return lambda path: str(converter.convert_local(path).text_content)


def xberg() -> Read:
    library: Any = importlib.import_module("xberg")
    config = library.ExtractionConfig(use_cache=False, disable_ocr=True, output_format="markdown")

    def read(path: Path) -> str:
        given = library.ExtractInput(kind=library.ExtractInputKind.BYTES, bytes=path.read_bytes(), filename=path.name)
        found = asyncio.run(library.extract(given, config))
        if not found.results:
            raise ValueError(str(found.errors))
        return "\n\n".join(document.content for document in found.results)

    return read


def liteparse() -> Read:
    reader = importlib.import_module("liteparse").LiteParse(
        ocr_enabled=False, output_format="markdown", quiet=True, image_mode="off"
    )
    return lambda path: str(reader.parse(path.read_bytes()).text)


def pypdfium2() -> Read:
    library: Any = importlib.import_module("pypdfium2")
    return lambda path: "\n".join(page.get_textpage().get_text_range() for page in library.PdfDocument(path))


def pypdf() -> Read:
    library: Any = importlib.import_module("pypdf")
    return lambda path: "\n".join(page.extract_text() for page in library.PdfReader(path).pages)


def pdfplumber() -> Read:
    library: Any = importlib.import_module("pdfplumber")

    def read(path: Path) -> str:
        with library.open(path) as document:
            return "\n".join(page.extract_text() for page in document.pages)

    return read


def trafilatura() -> Read:
    library: Any = importlib.import_module("trafilatura")
    return lambda path: (
        library.extract(path.read_bytes(), output_format="markdown", include_tables=True, favor_recall=True) or ""
    )


def docx2txt() -> Read:
    library: Any = importlib.import_module("docx2txt")
    return lambda path: str(library.process(path))


PARSERS = {
    "ragworks": Parser(ragworks, "ragworks"),
    "markitdown": Parser(markitdown, "markitdown"),
    "xberg": Parser(xberg, "xberg"),
    "liteparse": Parser(liteparse, "liteparse", "pdf"),
    "pypdfium2": Parser(pypdfium2, "pypdfium2", "pdf"),
    "pypdf": Parser(pypdf, "pypdf", "pdf"),
    "pdfplumber": Parser(pdfplumber, "pdfplumber", "pdf"),
    "trafilatura": Parser(trafilatura, "trafilatura", "html"),
    "docx2txt": Parser(docx2txt, "docx2txt", "docx"),
}


def main() -> None:
    name, path, runs, answer = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    answer.write_text(json.dumps(read(PARSERS[name].start(), path, runs)), encoding="utf-8")


def read(reader: Read, path: Path, runs: int) -> dict[str, Any]:
    seconds: list[float] = []
    text = ""
    while len(seconds) < runs and sum(seconds) < LONG_S:
        started = time.process_time()
        try:
            text = reader(path)
        except Exception as error:  # a parser may raise anything, and that is its answer
            return {"status": "refused", "reason": f"{type(error).__name__}: {error}"[:200]}
        seconds.append(time.process_time() - started)
    return {"status": "read" if text.strip() else "empty", "text": text, "seconds": seconds, "peak_mb": peak_mb()}


def peak_mb() -> int | None:
    """Resident peak of this process. Not getrusage: on Linux a child's begins at its parent's."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    return round(int(found.group(1)) * 1024 / 1e6) if found else None


if __name__ == "__main__":
    main()

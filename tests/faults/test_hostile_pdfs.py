"""PDFs made to hang a reader, to fill the memory or to crash it: each is read or refused, and no worker is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ragworks.errors import CorruptDocument, NoTextLayer, ReadMemoryExceeded
from ragworks.runtimes.processes import WorkerPool
from ragworks.types import ReadDocument
from ragworks.workers.reading import read_document, unspooled
from raw_pdf import LINE, assembled, empty_pages, one_page, stream

SAID = "The bell costs nine euros."
MIB = 1024**2


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(1) as pool:
        yield pool


@dataclass(frozen=True)
class Read:
    """What a worker made of a file."""

    document: ReadDocument
    text: str


async def read(pool: WorkerPool, folder: Path, data: bytes, memory_mib: int = 1024) -> Read:
    path, spool = folder / "hostile.pdf", folder / "spool"
    path.write_bytes(data)
    document = await pool.run(
        read_document, str(path), str(spool), path.name, None, None, None, 200,
        limit_s=50, max_memory_bytes=memory_mib * MIB,
    )  # fmt: skip
    with spool.open("rb") as file:
        return Read(document, "".join(part.text for part in unspooled(file)))


async def test_ten_thousand_empty_pages_have_no_text_layer(pool: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(NoTextLayer, match="10000 pages"):
        await read(pool, tmp_path, empty_pages(10_000), memory_mib=400)


@pytest.mark.parametrize("box", [b"0 0 1000000000 1000000000", b"-1e30 -1e30 1e30 1e30", b"0 0 0 0", b"612 792 0 0"])
async def test_a_page_of_any_size_is_read(pool: WorkerPool, tmp_path: Path, box: bytes) -> None:
    assert (await read(pool, tmp_path, one_page(box=box))).text.strip() == SAID


@pytest.mark.parametrize(
    "entries",
    [
        [b"<</Title(a)/Parent 6 0 R/First 7 0 R>>"],
        [b"<</Title(a)/Parent 6 0 R/Next 8 0 R>>", b"<</Title(b)/Parent 6 0 R/Next 7 0 R>>"],
        [b"<</Title(a)/First %d 0 R>>" % number for number in range(8, 2000)],
    ],
    ids=["its own child", "each other's neighbours", "two thousand levels"],
)
async def test_an_outline_without_end_costs_the_layout_only(
    pool: WorkerPool, tmp_path: Path, entries: list[bytes]
) -> None:
    """The layout reader follows it until its stack is full, and took the worker with it."""
    outline = (b"<</Type/Outlines/First 7 0 R/Last 7 0 R/Count 1>>", *entries)
    found = await read(pool, tmp_path, one_page(LINE, *outline, catalog=b"/Outlines 6 0 R"))
    assert found.text.strip() == SAID
    assert any("outline" in warning for warning in found.document.warnings)


async def test_pages_that_are_their_own_parent_are_a_broken_document(pool: WorkerPool, tmp_path: Path) -> None:
    endless = assembled(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2000000000>>")
    with pytest.raises(CorruptDocument):
        await read(pool, tmp_path, endless)


async def test_pages_that_are_not_there_are_a_few_warnings(pool: WorkerPool, tmp_path: Path) -> None:
    missing = one_page().replace(b"/Count 1>>", b"/Count 9999>>", 1)
    found = await read(pool, tmp_path, missing)
    assert found.text.strip() == SAID
    assert len(found.document.warnings) == 21
    assert found.document.warnings[-1].endswith("more warnings about pages")


async def test_a_drawing_that_holds_itself_twice_ends_at_the_memory_limit_and_the_next_is_read(
    pool: WorkerPool, tmp_path: Path
) -> None:
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 612 792]/Resources<</XObject<</X 6 0 R>>>>"
    drawing = one_page(b"/X Do ", stream(b"/X Do /X Do ", form), resources=b"/XObject<</X 6 0 R>>")
    with pytest.raises(ReadMemoryExceeded):
        await read(pool, tmp_path, drawing, memory_mib=200)
    assert (await read(pool, tmp_path, one_page())).text.strip() == SAID

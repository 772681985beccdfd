"""The Python API over a real data folder."""

from __future__ import annotations

from pathlib import Path

import ragworks


async def test_a_folder_that_is_ingested_from_python_is_known_as_its_documents_origin(tmp_path: Path) -> None:
    """So that a server can follow it from there on."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "fox.md").write_text("The battery of the Fox lasts two years.\n")
    async with ragworks.open(tmp_path / "data", embeddings_service={"model_name": "hashing"}) as works:
        await works.ingest(docs)
        await works.add("a note", id="note")
        origins = {one.id: one.origin for one in (await works.documents()).data}
    assert origins == {"fox.md": str(docs), "note": None}

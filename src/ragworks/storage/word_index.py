"""BM25 (Robertson and Zaragoza 2009, k1 1.2, b 0.75, by tantivy) derived from the rows of one collection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Filter, Occur, Query

from ragworks.errors import StorageFull

HEAP_BYTES = 15 * 1024**2  # the least that tantivy takes; a commit costs 8 CPU-ms with it, 14 with 128 MB
NO_ROOM = ("StorageFull", "FileTooLarge", "QuotaExceeded", "ReadOnlyFilesystem", "PermissionDenied")
LONGEST_WORD = 60
LONGEST_QUESTION = 200  # words of a question that are looked up; more only cost time

_schema = (
    tantivy.SchemaBuilder()
    .add_unsigned_field("key", indexed=True, fast=True)
    .add_unsigned_field("version", indexed=True, fast=True)
    .add_text_field("body", tokenizer_name="words", index_option="freq")
    .build()
)


def _analyzer() -> tantivy.TextAnalyzer:
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(Filter.remove_long(LONGEST_WORD))
        .filter(Filter.lowercase())
        .filter(Filter.stopword("english"))
        .filter(Filter.stemmer("english"))
        .build()
    )


class Bm25Index:
    """storage_protocols.WordIndex in a folder of its own. Searching never waits for a change."""

    def __init__(self, folder: Path) -> None:
        """Open the index in ``folder``, which exists; an empty one is made. Raises ValueError if it is unreadable."""
        self._analyzer = _analyzer()
        try:
            self._index = tantivy.Index(_schema, path=str(folder))
        except (ValueError, OSError) as error:
            raise ValueError(f"{folder} is not a word index: {error}") from error
        self._index.register_tokenizer("words", self._analyzer)
        self._writer: tantivy.IndexWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.wait_merging_threads()
            self._writer = None

    def apply(self, removed: Sequence[int], added: Sequence[tuple[int, int, str]]) -> None:
        """See storage_protocols.WordIndex. Raises StorageFull; then nothing was applied."""
        try:
            self._commit(removed, added)
        except ValueError as error:
            self._writer = None  # one that could not commit swallows what it is given next
            if any(sign in str(error) for sign in NO_ROOM):
                raise StorageFull(f"cannot write the word index: {error}") from error
            raise

    def _commit(self, removed: Sequence[int], added: Sequence[tuple[int, int, str]]) -> None:
        if self._writer is None:
            self._writer = self._index.writer(HEAP_BYTES, num_threads=1)
        if removed:
            # delete_documents_by_term makes a signed term of any int, which matches no unsigned field.
            gone = Query.term_set_query(_schema, "version", list(removed))
            self._writer.delete_documents_by_query(gone)
        for version, key, text in added:
            document = tantivy.Document()
            document.add_unsigned("key", key)
            document.add_unsigned("version", version)
            document.add_text("body", text)
            self._writer.add_document(document)
        self._writer.commit()
        self._index.reload()

    def search(
        self, question: str, limit: int, allowed_versions: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        return self._run(question, limit, "version", allowed_versions)

    def scores(self, question: str, keys: Sequence[int]) -> dict[int, float]:
        return dict(self._run(question, len(keys), "key", keys)) if len(keys) else {}

    def keys(self) -> NDArray[np.uint64]:
        searcher = self._index.searcher()
        if not searcher.num_docs:
            return np.array([], dtype=np.uint64)
        found = searcher.search(Query.all_query(), searcher.num_docs, count=False).hits
        return np.array(searcher.fast_field_values("key", [at for _, at in found]), dtype=np.uint64)

    def _run(self, question: str, limit: int, field: str, allowed: Sequence[int] | None) -> list[tuple[int, float]]:
        words = self._words(question)
        if not words:
            return []
        query = Query.boolean_query(
            [(Occur.Should, Query.term_query(_schema, "body", word, index_option="freq")) for word in words]
        )
        if allowed is not None:
            within = Query.term_set_query(_schema, field, [int(one) for one in allowed])
            query = Query.boolean_query([(Occur.Must, query), (Occur.Must, Query.const_score_query(within, 0.0))])
        searcher = self._index.searcher()
        found = searcher.search(query, limit, count=False).hits
        keys = searcher.fast_field_values("key", [at for _, at in found])
        return [(int(key or 0), float(score)) for key, (score, _) in zip(keys, found, strict=True)]

    def _words(self, question: str) -> list[str]:
        words: list[str] = self._analyzer.analyze(question)[:LONGEST_QUESTION]
        # Single letters ("s" of "it's") match everywhere and lower nDCG@10 by .007; alone they are all there is.
        return [word for word in words if len(word) > 1] or words

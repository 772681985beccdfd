"""Checks the citations of an answer: a marker stays only if it resolves to a span of a hit."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragworks.types import Citation, Draft, Hit, Quote

_MARKERS = re.compile(r"[ \t]*\[\d{1,4}(?:\s*,\s*\d{1,4})*\]")
_NUMBER = re.compile(r"\d+")


def cite(answer: str, draft: Draft, hits: Sequence[Hit]) -> tuple[str, tuple[Citation, ...], int]:
    """(answer without markers that do not resolve, citations by first appearance, how many markers were removed).

    ``[1, 2]`` becomes ``[1][2]``. A citation's offsets point into the document, and its quote is exactly the
    document's text there. An answer that abstained cites nothing.
    """
    citations: dict[int, Citation] = {}
    removed = 0

    def checked(match: re.Match[str]) -> str:
        nonlocal removed
        kept = ""
        for marker in map(int, _NUMBER.findall(match[0])):
            citation = None if draft.abstained else resolve(marker, draft.quotes.get(marker), hits)
            if citation is None:
                removed += 1
            else:
                citations.setdefault(marker, citation)
                kept += f"[{marker}]"
        space = match[0][: match[0].index("[")]
        return space + kept if kept else ""

    text = _MARKERS.sub(checked, answer)
    while removed and (again := _MARKERS.sub(checked, text)) != text:  # a removal may join what was around it
        text = again
    return text, tuple(citations.values()), removed


def resolve(marker: int, quote: Quote | None, hits: Sequence[Hit]) -> Citation | None:
    """The citation of one marker, or None if its quote is not a non-blank span inside a hit whose offsets agree."""
    if quote is None or not 1 <= quote.hit <= len(hits):
        return None
    hit = hits[quote.hit - 1]
    text = hit.text[quote.start : quote.end] if 0 <= quote.start < quote.end <= len(hit.text) else ""
    if not text.strip() or hit.end - hit.start != len(hit.text):
        return None
    return Citation(
        marker=marker,
        document_id=hit.document_id,
        chunk_id=hit.chunk_id,
        title=hit.title,
        page=hit.page,
        start=hit.start + quote.start,
        end=hit.start + quote.end,
        quote=text,
    )

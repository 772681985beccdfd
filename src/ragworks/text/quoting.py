"""Which words of a hit a citation points at, when the model only said its number."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragworks.text.sentences import sentences
from ragworks.text.words import content_words
from ragworks.types import Hit, Quote

_MARKERS = re.compile(r"((?:\s*\[\d{1,4}(?:\s*,\s*\d{1,4})*\])+)")
_NUMBER = re.compile(r"\d+")


def quotes(answer: str, hits: Sequence[Hit]) -> dict[int, Quote]:
    """A quote for each marker of ``answer`` that names a hit: the sentence of the hit that shares the most words with
    what the marker stands behind, the whole hit where none shares any (another language, a paraphrase)."""
    found: dict[int, Quote] = {}
    parts = _MARKERS.split(answer)
    for said, markers in zip(parts[::2], parts[1::2], strict=False):
        claims = [said[start:end] for start, end in sentences(said)]
        for number in map(int, _NUMBER.findall(markers)):
            if 1 <= number <= len(hits) and number not in found:
                found[number] = _quote(number, claims[-1] if claims else "", hits[number - 1])
    return found


def _quote(number: int, claim: str, hit: Hit) -> Quote:
    wanted = content_words(claim)
    spans = [(len(wanted & content_words(hit.text[start:end])), start, end) for start, end in sentences(hit.text)]
    most = max(spans, key=lambda span: span[0], default=(0, 0, 0))
    return Quote(number, most[1], most[2]) if most[0] else Quote(number, 0, len(hit.text))

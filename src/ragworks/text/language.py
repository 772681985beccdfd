"""The language that a document is mostly written in."""

from __future__ import annotations

from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from ragworks.types import Parsed

# Where the model was right on single short sentences of 23 languages; on tables of numbers, logs, JSON it stays below.
_SURE = 0.5
_PLACES, _SAMPLE = 9, 4_500  # looked at: so many places of the text, so many characters together


def language(parsed: Parsed) -> str | None:
    """The ISO 639-1 code of the prose's language, None unless it is clear."""
    sample = _sample(parsed)
    if not sample:
        return None
    code, probability = _identifier().classify(sample)
    return str(code) if len(code) == 2 and probability >= _SURE else None


def _sample(parsed: Parsed) -> str:
    """The middles of some sections of prose, evenly spaced: beginnings are often licences or lists of names."""
    prose = [section for section in parsed.sections if section.kind == "prose"]
    chosen = prose[:: -(-len(prose) // _PLACES) or 1]
    size = _SAMPLE // max(1, len(chosen))
    starts = [section.start + max(0, section.end - section.start - size) // 2 for section in chosen]
    parts = (parsed.text[at : min(at + size, section.end)] for at, section in zip(starts, chosen, strict=True))
    return "\n".join(parts).strip()


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    """One model per process: it takes 0.7 s and 80 MB."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

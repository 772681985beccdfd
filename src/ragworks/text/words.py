"""The words of a text that carry its meaning, roughly stemmed: for overlap between a question and a sentence."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")

_STOP_WORDS = """
    a about after all also am an and any are as at be because been being but by can could did do does doing down
    for from had has have having he her here hers him his how i if in into is it its just me more most my no nor not
    of off on once only or other our out over own please same she should so some such tell than that the their them
    then there these they this those to too under until up very was we were what when where which while who whom
    whose why will with would you your s t
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def content_words(text: str) -> frozenset[str]:
    """Lower-case stems of the words that are no stop words; all words if there are only stop words."""
    words = _WORD.findall(text.lower())
    return frozenset(stem(word) for word in words if word not in STOP_WORDS) or frozenset(words)


def stem(word: str) -> str:
    """The word without a common English ending; crude on purpose, and the same for question and passage."""
    word = word.replace("\u2019", "'").removesuffix("'s")
    for ending in ("ing", "edly", "ed", "ies", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].removesuffix("e")
    return word.removesuffix("e") if len(word) > 4 else word

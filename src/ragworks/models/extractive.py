"""A generator that quotes: the sentences that answer best, each with its marker, or an honest "not found"."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ragworks.protocols import PassageScorer
from ragworks.text.sentences import sentences
from ragworks.text.words import content_words
from ragworks.types import Draft, Hit, Quote, Turn

ABSTENTION = "I could not find an answer to this in the documents."

MAX_CANDIDATES = 24
MAX_SENTENCES = 3
CLOSE = 3.0
"""A further sentence is quoted only if it scores within this of the best: 3 quotes the sought words more often than 2
(.860 against .840 of questions, 23 characters more); beyond it answers only grow longer."""
ALIKE = 0.8
"""Sentences that share this much of their words say the same: the second is not quoted."""
NEAR_CHARS = 300
"""Two quotes of one hit share one marker, so their span must stay short: at most this much between them."""
RANK_COST = 0.05
"""What one rank costs a sentence in the prefilter, in shares of the question's words."""

_MARKER_LIKE = re.compile(r"\s*\[\d[\d,\s]*\]")
_HEADING = re.compile(r"#{1,6}\s")
_SPACE = re.compile(r"\s+")
_DECORATION = re.compile(r"^(?:#{1,6}|[-*+•])\s+")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of hit number ``hit`` (1-based), by code points into its text; ``context`` is its heading."""

    hit: int
    start: int
    end: int
    text: str
    context: str
    words: frozenset[str]


class ExtractiveGenerator:
    """Quotes up to three sentences of the hits. Nothing in a passage can steer it: passages are only scored.

    ``support_threshold`` is in the scorer's units; when the best sentence scores less, the answer is ABSTENTION.
    """

    name = "extractive"

    def __init__(self, scorer: PassageScorer, support_threshold: float) -> None:
        self._scorer, self._threshold = scorer, support_threshold
        # One thread of its own: scoring is slow and takes turns, and must not hold up searches meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="extractive")

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        candidates, scores = await asyncio.get_running_loop().run_in_executor(self._thread, self.rank, question, hits)
        chosen = choose(candidates, scores, self._threshold)
        usage, support = {"scored_sentences": len(candidates)}, max(scores, default=None)
        if not chosen:
            yield ABSTENTION
            yield Draft({}, abstained=True, usage=usage, support=support, model=self.name)
            return
        for place, sentence in enumerate(chosen):
            yield f"{' ' if place else ''}{_shown(sentence.text)} [{sentence.hit}]"
        yield Draft(_quotes(chosen), abstained=False, usage=usage, support=support, model=self.name)

    def rank(self, question: str, hits: Sequence[Hit]) -> tuple[list[Candidate], list[float]]:
        """The candidates and how well each answers. Blocks: for a thread.

        Only the last question is scored: with the earlier turns in front of it, answerable and unanswerable questions
        were harder to tell apart (.81 against .89 of pairs in the right order on multi-turn questions).
        """
        candidates = shortlist(question, hits)
        passages = [f"{one.context}: {_shown(one.text)}" if one.context else _shown(one.text) for one in candidates]
        return candidates, [float(score) for score in self._scorer.score(question, passages)]


def shortlist(question: str, hits: Sequence[Hit]) -> list[Candidate]:
    """At most MAX_CANDIDATES sentences worth scoring: those with many of the question's words, in early hits."""
    wanted = content_words(question)
    ranked: list[tuple[float, Candidate]] = []
    for rank, hit in enumerate(hits):
        above = hit.headings[-1] if hit.headings else ""
        for start, end, heading in _quotable(hit.text):
            text, context = hit.text[start:end], heading or above
            words = content_words(text)
            if words:
                share = len(words & wanted) / max(1, len(wanted))
                ranked.append((share - RANK_COST * rank, Candidate(rank + 1, start, end, text, context, words)))
    ranked.sort(key=lambda item: -item[0])
    return [sentence for _, sentence in ranked[:MAX_CANDIDATES]]


def _quotable(text: str) -> Iterator[tuple[int, int, str]]:
    """Sentences that can be an answer, with the heading above them in ``text``.

    Headings are none, and a question is one only together with the sentence after it.
    """
    heading, asked = "", -1
    for start, end in sentences(text):
        if _HEADING.match(text, start, end):
            heading, asked = text[start:end].lstrip("# "), -1
        elif text[start:end].endswith("?"):
            asked = start
        else:
            yield start if asked < 0 else asked, end, heading
            asked = -1


def choose(candidates: Sequence[Candidate], scores: Sequence[float], threshold: float) -> list[Candidate]:
    """The sentences to quote, in the order of the answer: best first, but one hit's sentences in reading order."""
    ranked = sorted(zip(scores, candidates, strict=True), key=lambda item: -item[0])
    if not ranked or ranked[0][0] < threshold:
        return []
    least = ranked[0][0] - CLOSE
    chosen: list[Candidate] = []
    for score, sentence in ranked:
        if len(chosen) == MAX_SENTENCES or score < least:
            break
        if not any(_alike(sentence, other) or _far(sentence, other) for other in chosen):
            chosen.append(sentence)
    order = list(dict.fromkeys(sentence.hit for sentence in chosen))
    return sorted(chosen, key=lambda sentence: (order.index(sentence.hit), sentence.start))


def _alike(one: Candidate, other: Candidate) -> bool:
    return len(one.words & other.words) >= ALIKE * min(len(one.words), len(other.words))


def _far(one: Candidate, other: Candidate) -> bool:
    gap = max(one.start, other.start) - min(one.end, other.end)
    return one.hit == other.hit and gap > NEAR_CHARS


def _quotes(chosen: Sequence[Candidate]) -> dict[int, Quote]:
    """One span per marker, from the first to the last quoted sentence of that hit."""
    quotes: dict[int, Quote] = {}
    for one in chosen:
        known = quotes.get(one.hit, Quote(one.hit, one.start, one.end))
        quotes[one.hit] = Quote(one.hit, min(known.start, one.start), max(known.end, one.end))
    return quotes


def _shown(text: str) -> str:
    """The sentence on one line, without list marks and without ``[3]`` of its own, which would read as a marker.

    The row of a table becomes ``Battery: 3 years``; its quote stays as the document has it.
    """
    if text.startswith("|") and text.endswith("|"):
        first, *others = [cell.strip() for cell in text.strip("|").split("|")]
        text = f"{first}: {', '.join(others)}" if others else first
    return _SPACE.sub(" ", _MARKER_LIKE.sub("", _DECORATION.sub("", text))).replace("**", "").strip()

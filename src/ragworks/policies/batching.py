"""Which of the waiting texts the model embeds next: questions first, callers in turn, each with texts of its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragworks.types import TextKind


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """``batch_tokens`` counts padding: rows times the longest row. ``max_wait_s`` is how long passages may be held
    back to fill a batch; questions never are."""

    batch_size: int = 100
    batch_tokens: int = 512
    max_wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WaitingText:
    """One text in line: its tokens as the model will see them, and the seconds it has waited.

    ``turn`` is its caller's: the lowest is next. Whoever chooses gives the caller whose turn it was the highest.
    """

    kind: TextKind
    tokens: int
    age_s: float
    turn: int = 0


@dataclass(frozen=True, slots=True)
class BatchDecision:
    """``take`` are places in the line, all of one kind, shortest first; empty means look again in ``wait_s``.

    ``seed`` is the place of the text whose turn it was.
    """

    take: tuple[int, ...]
    wait_s: float | None
    reason: str
    seed: int | None = None


def choose(settings: BatchSettings, line: Sequence[WaitingText]) -> BatchDecision:
    """The next batch. Nothing waits: nothing to take and nothing to wait for. One text waits: it goes alone.

    The seed, the oldest text of the caller whose turn it is, is always part of the batch. So of k callers in a lane
    each gets a batch in k, and none starves, whatever the others bring. The rest of the batch, whosever they are, are
    those nearest to the seed in length, which keeps padding small. A text over the budget goes alone.
    """
    if not line:
        return BatchDecision((), None, "nothing waits")
    questions = [place for place, text in enumerate(line) if text.kind == "question"]
    if questions:
        return _around_seed(settings, line, questions, "questions go first")
    oldest_s = max(text.age_s for text in line)
    if oldest_s < settings.max_wait_s and not _fills(settings, line):
        return BatchDecision((), settings.max_wait_s - oldest_s, "the batch is not full yet")
    return _around_seed(settings, line, range(len(line)), "the passage whose turn it is and its equals in length")


def _fills(settings: BatchSettings, line: Sequence[WaitingText]) -> bool:
    return len(line) >= settings.batch_size or sum(text.tokens for text in line) >= settings.batch_tokens


def _around_seed(
    settings: BatchSettings, line: Sequence[WaitingText], lane: Sequence[int], reason: str
) -> BatchDecision:
    first = min(lane, key=lambda place: (line[place].turn, -line[place].age_s, place))
    by_length = sorted(lane, key=lambda place: line[place].tokens)
    tokens = [line[place].tokens for place in by_length]
    seed = by_length.index(first)
    low = high = seed
    while high - low + 1 < settings.batch_size:
        down = tokens[seed] - tokens[low - 1] if low > 0 else None
        up = tokens[high + 1] - tokens[seed] if high + 1 < len(tokens) else None
        rows = high - low + 2
        if up is not None and tokens[high + 1] * rows > settings.batch_tokens:
            up = None
        if down is not None and tokens[high] * rows > settings.batch_tokens:
            down = None
        if down is None and up is None:
            break
        if down is None or (up is not None and up < down):
            high += 1
        else:
            low -= 1
    return BatchDecision(tuple(by_length[low : high + 1]), None, reason, first)

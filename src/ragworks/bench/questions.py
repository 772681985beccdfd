"""What a profile asks, and what it asks about where there is no folder yet: plain words, so that a model reads them as
it reads those of people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

VARIED = "each in letter cases of its own, so that no cache holds it while the model reads the same words"
CASED = 16  # letters; the chance that two of 65,536 cases are the same is small among hundreds of questions
QUESTION_WORDS = (6, 14)
WORDS = tuple(
    """
    account agreement answer approval archive battery board budget building camera card carrier change claim
    clause colleague company contract cost customer damage date day deadline delivery department deposit device
    document door draft email employee engine error expense factory fee file form guarantee holiday hour insurance
    invoice journey key law leave letter licence limit list machine manager manual market meeting month network
    night notice office order package paper part password payment period person phone place plan policy price
    printer problem product project receipt record refund region repair report request return right river road
    room rule safety salary season security service ship shop signature station storage supplier support system
    tax team term test ticket time town trade train travel truck vehicle visit warehouse warranty water week
    window work year accept allow apply arrive ask begin book bring build buy call cancel carry check close
    collect confirm cover decide deliver divide drive enter expect explain extend fill follow give hold include
    inform keep lend long longer many new old open other own public quick ready same second short small third
    under until valid wide
    """.split()  # noqa: SIM905 - so many quoted words are not easier to read
)


def documents(count: int, seed: int = 0) -> list[dict[str, str]]:
    """As they are submitted: ``count`` notes of a hundred to two hundred words."""
    rng = Random(seed)
    return [{"id": f"note-{at:04}", "title": f"Note {at}", "text": " ".join(_sentences(rng))} for at in range(count)]


def _sentences(rng: Random) -> Iterator[str]:
    for _ in range(rng.randint(10, 20)):
        yield f"{' '.join(rng.choices(WORDS, k=rng.randint(6, 14))).capitalize()}."


def taken(texts: Sequence[str], count: int, rng: Random) -> list[str]:
    """Stretches of the texts' own words, as long as questions are; none if there are no words."""
    found, worded = [], [words for text in texts if (words := text.split())]
    for _ in range(count if worded else 0):
        words, length = rng.choice(worded), rng.randint(*QUESTION_WORDS)
        start = rng.randrange(max(1, len(words) - length + 1))
        found.append(" ".join(words[start : start + length]))
    return found


def varied(question: str, rng: Random) -> str:
    """The question in letters that are large or small by chance; where it has few letters, with a number behind it."""
    found = "".join(rng.choice((letter.lower(), letter.upper())) for letter in question)
    cased = sum(letter.lower() != letter.upper() for letter in question)
    return found if cased >= CASED else f"{found} {rng.getrandbits(32)}"

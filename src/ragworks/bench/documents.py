"""Documents made from a seed, edition after edition, and what an undisturbed ingestion makes of each."""

from __future__ import annotations

import html
import json
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.workers.reading import read_document, unspooled

CHUNK_TOKENS = 64  # small chunks, so that one document in twenty is staged in more than one transaction
TWIN_EVERY, TWIN_OF = 10, 5  # every tenth document has the words of the one five before it, under a name of its own
COLLECTIONS = ("default", "laws", "manuals.v2")
KINDS = ("md", "txt", "html", "json", "text")  # the last is sent as JSON, the others as files
SYLLABLES = [first + second for first in "bcdfghklmnprstvxyz" for second in "aeio"]

Key = tuple[str, str]
"""(collection, document id)."""


@dataclass(frozen=True, slots=True)
class Read:
    """A document as it must be shown: its text and the (start, end, text) of its chunks."""

    text: str
    chunks: tuple[tuple[int, int, str], ...]


class Documents:
    """``count`` documents in three collections; every method gives the same for the same seed."""

    def __init__(self, seed: int, count: int, *, bundled: bool = False) -> None:
        self._seed = seed
        self._tokenizer = str(locate(BGE_SMALL_EN).tokenizer) if bundled else None
        self._index = {_key(at): at for at in range(count)}
        self.keys = tuple(self._index)
        self.read = lru_cache(maxsize=4 * count)(self._read)

    def kind(self, key: Key) -> str:
        return KINDS[self._index[key] % len(KINDS)]

    def twin(self, key: Key) -> Key:
        """The document whose words this one has; of most, itself."""
        at = self._index[key]
        return _key(at - TWIN_OF) if at % TWIN_EVERY == TWIN_EVERY - 1 else key

    def title(self, key: Key, edition: int) -> str:
        """Words that no other document holds, unless it is a twin."""
        return f"{_words(self._rng(key, edition, 'title'), 3).title()} {self.twin(key)[1]}"

    def content(self, key: Key, edition: int) -> str:
        title, paragraphs = self.title(key, edition), list(_paragraphs(self._rng(key, edition, "body")))
        if self.kind(key) == "md":
            return f"# {title}\n\n" + "\n\n".join(_headed(paragraphs))
        if self.kind(key) == "html":
            body = "".join(f"<p>{html.escape(one)}</p>" for one in paragraphs)
            return f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>{body}</body></html>"
        if self.kind(key) == "json":
            return json.dumps({"title": title, "paragraphs": paragraphs}, indent=1)
        return "\n\n".join([title, *paragraphs])

    def _rng(self, key: Key, edition: int, part: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.twin(key)}/{edition}/{part}")

    def _read(self, key: Key, edition: int) -> Read:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(self.content(key, edition))
            file.flush()
            media_type = "text/plain" if self.kind(key) == "text" else None
            spool = f"{file.name}.read"
            read_document(file.name, spool, key[1], media_type, None, self._tokenizer, CHUNK_TOKENS, lambda stage: None)
        with open(spool, "rb") as read:
            os.unlink(spool)
            found = list(unspooled(read))
        chunks = tuple((one.start, one.end, one.text) for part in found for one in part.chunks)
        return Read("".join(part.text for part in found), chunks)


def _key(at: int) -> Key:
    kind = KINDS[at % len(KINDS)]
    return COLLECTIONS[
        at // 20 % len(COLLECTIONS)
    ], f"folder-{at % 7}/document-{at:04}.{'txt' if kind == 'text' else kind}"


def _paragraphs(rng: random.Random) -> Iterator[str]:
    size = rng.random()
    count = rng.randint(1, 6) if size < 0.8 else rng.randint(10, 40) if size < 0.95 else rng.randint(80, 140)
    for _ in range(count):
        yield " ".join(_words(rng, rng.randint(6, 14)).capitalize() + "." for _ in range(rng.randint(2, 6)))


def _headed(paragraphs: list[str]) -> Iterator[str]:
    for at, paragraph in enumerate(paragraphs):
        yield f"## Part {at // 4}\n\n{paragraph}" if at % 4 == 0 else paragraph


def _words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(count))

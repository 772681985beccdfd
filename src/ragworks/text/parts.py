"""A document's text in bounded stretches, so that whoever passes it on needs to hold one of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ragworks.types import Chunk, Part

CHUNKS = 64  # embedded and staged at a time: about one transaction a second
LENGTH = 1024 * 1024  # code points of a part; chunks are far shorter


def parts(text: str, chunks: Iterable[Chunk]) -> Iterator[Part]:
    """The whole of ``text`` in order, each stretch with its chunks; a stretch of nothing but whitespace has none."""
    start = 0
    held: list[Chunk] = []
    for one in chunks:
        if held and (len(held) == CHUNKS or one.end - start > LENGTH):
            yield Part(start, text[start : held[-1].end], tuple(held))
            start, held = held[-1].end, []
        while not held and one.start - start > LENGTH:
            yield Part(start, text[start : start + LENGTH], ())
            start += LENGTH
        held.append(one)
    if held:
        yield Part(start, text[start : held[-1].end], tuple(held))
        start = held[-1].end
    for at in range(start, len(text), LENGTH):
        yield Part(at, text[at : at + LENGTH], ())

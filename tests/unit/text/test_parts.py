from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.parts import CHUNKS, parts
from ragworks.types import Chunk

SIZES = st.tuples(st.integers(0, 40), st.integers(1, 9))


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[Chunk]]:
    """A text with chunks in it, in order, apart from each other by anything from nothing to a long gap."""
    text, made = "", []
    for ordinal, (gap, length) in enumerate(draw(st.lists(SIZES, max_size=9))):
        text += " " * gap
        made.append(Chunk(ordinal, len(text), len(text) + length, "x" * length))
        text += "x" * length
    return text + " " * draw(st.integers(0, 40)), made


@given(cut_texts())
def test_parts_are_the_whole_text_in_order_and_hold_every_chunk_once(given: tuple[str, list[Chunk]]) -> None:
    text, chunks = given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragworks.text.parts.LENGTH", 16)
        patch.setattr("ragworks.text.parts.CHUNKS", 3)
        made = list(parts(text, chunks))
    assert "".join(part.text for part in made) == text
    assert [chunk for part in made for chunk in part.chunks] == chunks
    at = 0
    for part in made:
        assert part.start == at
        at += len(part.text)
        assert len(part.text) <= 16 + 9
        assert len(part.chunks) <= 3
        for chunk in part.chunks:
            assert part.text[chunk.start - part.start : chunk.end - part.start] == chunk.text


def test_an_ordinary_document_is_one_part() -> None:
    text = "x" * CHUNKS
    assert len(list(parts(text, [Chunk(at, at, at + 1, "x") for at in range(CHUNKS)]))) == 1

"""Hypothesis generators, one section per kind of value."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ragworks.text.assemble import Piece, assemble
from ragworks.types import Parsed

# A busy machine is slow, which is no property of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Documents. Letters of several scripts, signs that end sentences, signs that mean something in Markdown, odd spaces.
_SIGNS = "abcdeXYZ 0123456789 .!?,;:-_*#|`>()[]\\\"' \n\n\r\t äßéñ中文字。 שלום عربي \u00a0\u200b\u3000🚲"
words = st.text("abcdefgh", min_size=1, max_size=12)
sentences = st.lists(words, min_size=1, max_size=12).map(lambda found: " ".join(found).capitalize() + ".")
paragraphs = st.lists(sentences, min_size=1, max_size=8).map(" ".join)
anything = st.text(st.one_of(st.sampled_from(_SIGNS), st.characters(codec="utf-8")), max_size=400)
headings = st.lists(words, max_size=3).map(tuple)


@st.composite
def markdown(draw: st.DrawFn) -> str:
    """Markdown with headings, paragraphs, lists, tables, fences, and text that is none of these."""
    blocks = st.one_of(
        st.tuples(st.integers(1, 6), words).map(lambda pair: f"{'#' * pair[0]} {pair[1]}"),
        paragraphs,
        st.lists(sentences, min_size=1, max_size=6).map(lambda items: "\n".join(f"- {item}" for item in items)),
        st.lists(st.tuples(words, words), min_size=1, max_size=30).map(
            lambda rows: "| a | b |\n|---|---|\n" + "\n".join(f"| {left} | {right} |" for left, right in rows)
        ),
        paragraphs.map(lambda text: f"```\n{text}\n```"),
        anything,
    )
    return "\n\n".join(draw(st.lists(blocks, max_size=12)))


@st.composite
def paged(draw: st.DrawFn) -> Parsed:
    """A parsed document with pages, as a PDF gives."""
    pieces = st.builds(
        Piece,
        text=st.one_of(paragraphs, anything),
        headings=headings,
        page=st.integers(1, 3),
        kind=st.sampled_from(("prose", "table", "code")),
    )
    found = sorted(draw(st.lists(pieces, max_size=12)), key=lambda piece: piece.page or 0)
    return assemble(found, "application/pdf", pages=3)


# Damage as disks, networks and attackers do it: bytes that change, go, come, are repeated, and an end that is missing.
@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with one to five damages."""
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        until = draw(st.integers(at, min(len(data), at + 100)))
        new = draw(
            st.sampled_from((b"\0", b"\xff", b"<", b">", b"&", b'"', b"", data[at:until] * 2)) | st.binary(max_size=4)
        )
        data = data[:at] + new + (b"" if draw(st.integers(0, 9)) == 0 else data[until:])
    return data

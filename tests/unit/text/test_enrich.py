from __future__ import annotations

import pytest

from ragworks.text.assemble import Piece, assemble
from ragworks.text.enrich import PROPERTIES, enrich
from ragworks.types import Parsed


@pytest.mark.parametrize(
    ("title", "headings", "page", "expected"),
    [
        ("Terms of sale", ("Intro",), 1, "Terms of sale"),
        ("Microsoft Word - terms.doc", ("Intro",), 1, "Intro"),
        ("untitled", (), 1, "sale terms"),
        ("report.indd", ("Intro",), 2, "sale terms"),
        (None, ("3.1",), None, "sale terms"),
        ("  Two \n lines ", (), None, "Two lines"),
    ],
)
def test_the_title_comes_from_metadata_then_heading_then_name(
    title: str | None, headings: tuple[str, ...], page: int | None, expected: str
) -> None:
    parsed = assemble([Piece("text", headings, page)], "application/pdf", title=title)
    assert enrich(parsed, "docs/sale_terms.pdf").title == expected


def test_properties_have_one_name_and_one_form_in_every_format() -> None:
    parsed = assemble(
        [Piece("Der Rahmen ist aus Stahl und die Bremsen brauchen neue Beläge.")],
        "application/pdf",
        pages=3,
        properties={
            "author": " Ann\n Lee ",
            "created": "D:20240103093826+01'00'",
            "modified": "2024-02-01",
            "isbn": "1",
        },
    )
    assert enrich(parsed, "a.pdf").properties == {
        "author": "Ann Lee",
        "created": "2024-01-03T08:38:26Z",
        "modified": "2024-02-01",
        "language": "de",
        "pages": 3,
        "media_type": "application/pdf",
        "isbn": "1",
    }


@pytest.mark.parametrize("author", ["", "unknown", "Administrator", "User", "-"])
def test_an_author_that_names_nobody_is_left_out(author: str) -> None:
    parsed = assemble([Piece("1")], "text/plain", properties={"author": author, "created": "soon"})
    assert enrich(parsed, "a.txt").properties == {"media_type": "text/plain"}


def test_a_declared_language_counts_where_the_text_leaves_it_open() -> None:
    assert enrich(assemble([Piece("1")], "a/b", properties={"language": "pt-BR"}), "a").properties["language"] == "pt"


def test_a_property_that_cannot_be_found_out_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(parsed: Parsed) -> str:
        raise OSError("the model is gone")

    monkeypatch.setitem(PROPERTIES, "language", fail)
    done = enrich(assemble([Piece("text")], "text/plain", pages=2, warnings=("page 1: blank",)), "a.txt")
    assert done.properties == {"pages": 2, "media_type": "text/plain"}
    assert done.warnings == ("page 1: blank", "language could not be found out: the model is gone")

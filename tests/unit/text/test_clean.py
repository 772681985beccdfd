from __future__ import annotations

import unicodedata

import ftfy
import pytest
from hypothesis import given

from ragworks.text.assemble import Piece, assemble, pieces_of
from ragworks.text.clean import clean
from ragworks.types import Parsed
from strategies import paged


def cleaned(*pieces: Piece) -> list[str]:
    return [piece.text for piece in pieces_of(clean(assemble(pieces, "application/pdf")))]


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("a descrip-\ntion", "a description"),
        ("self-\nMade in 2019-\n2020", "self-Made in 2019-\n2020"),
        ("soft\u00adhyphen and soft\u00ad\nbreak", "softhyphen and softbreak"),
        ("nul\x00 and \x07bell", "nul and bell"),
        ("thin\u2009space\u00a0and  two", "thin space and two"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a   \n\n\n\nb", "a\n\nb"),
        ("Contents ........ 4", "Contents … 4"),
        ("ﬁne eﬀort, oﬃce", "fine effort, office"),
        ("GrÃ¶ÃŸe, donâ€™t\nand Größe, don’t", "Größe, don’t\nand Größe, don’t"),  # noqa: RUF001 - what comes of it
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),  # noqa: RUF001 - what comes of it
    ],
)
def test_text_is_tidied(text: str, tidy: str) -> None:
    assert cleaned(Piece(text)) == [tidy]


@pytest.mark.parametrize(
    "text",
    ["Zoë, naïve café", "IL Y A MARQUÉ…", "„Größe“ ½ ± µm²", "Ångström für Ærø", "x ≤ y ∀ε>0 ∃δ", "São Tomé"],
)
def test_accents_and_signs_that_are_right_stay(text: str) -> None:
    assert cleaned(Piece(text)) == [text]


def test_spaces_of_code_stay() -> None:
    assert cleaned(Piece("```\nif x:\n    y  = 1\n```", kind="code")) == ["```\nif x:\n    y  = 1\n```"]


def test_lines_that_repeat_at_the_edge_of_pages_are_dropped() -> None:
    bodies = [f"{word} begins\nReport 2024\n{word} ends" for word in ("Ant", "Bee", "Cat", "Dog")]
    pages = [Piece(f"Report 2024\n{body}\nPage {page} of 4", page=page) for page, body in enumerate(bodies, 1)]
    assert cleaned(*pages) == [body.replace("Report 2024\n", "") for body in bodies]


def test_running_titles_that_change_are_dropped_by_the_page_number_beside_them() -> None:
    titles = ["Ants", "Ants", "Bees", "Bees", "Cats", "Cats"]
    pages = [
        Piece(f"{f'{page + 8} {title}' if page % 2 else f'{title} {page + 8}'}\nabout {word}", page=page)
        for page, (title, word) in enumerate(zip(titles, "abcdef", strict=True), 1)
    ]
    assert cleaned(*pages) == [f"about {word}" for word in "abcdef"]


def test_a_running_title_is_no_heading_either() -> None:
    pages = [
        Piece(f"#### {page} Ants\nabout {word}", ("Insects", f"{page} Ants"), page)
        for page, word in enumerate("abcd", 1)
    ]
    done = clean(assemble(pages, "application/pdf"))
    assert {section.headings for section in done.sections} == {("Insects",)}


def test_items_that_are_numbered_like_the_pages_stay() -> None:
    steps = ["1. Step of a", "2. Stage of b", "3. Way of c", "4. Part of d"]
    pages = [
        Piece(f"{step}\nabout {word}", page=page)
        for page, (step, word) in enumerate(zip(steps, "abcd", strict=True), 1)
    ]
    assert cleaned(*pages) == [piece.text for piece in pages]


def test_a_numbered_line_that_does_not_count_the_pages_stays() -> None:
    pages = [Piece(f"Chapter {2 * page}\nabout {word}", page=page) for page, word in enumerate("abcd", 1)]
    assert cleaned(*pages) == [piece.text for piece in pages]


def test_two_pages_are_too_few_to_call_a_line_repeated() -> None:
    assert cleaned(Piece("Same\none", page=1), Piece("Same\ntwo", page=2)) == ["Same\none", "Same\ntwo"]


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown"])
def test_text_that_is_not_ours_to_change_comes_back_untouched(media_type: str) -> None:
    parsed = Parsed("a-\nb \x07 \r\n", (), media_type)
    assert clean(parsed) is parsed


@given(paged())
def test_sections_still_fit_the_text(parsed: Parsed) -> None:
    done = clean(parsed)
    covered = 0
    for section in done.sections:
        assert not done.text[covered : section.start].strip()
        assert done.text[section.start : section.end].strip()
        covered = section.end
    assert not done.text[covered:].strip()


@given(paged())
def test_cleaning_adds_nothing(parsed: Parsed) -> None:
    before, after = set(parsed.text), set(clean(parsed).text)
    repaired = set("".join(ftfy.fix_encoding(line) for line in parsed.text.splitlines(keepends=True)))
    ligatures = set(unicodedata.normalize("NFKC", "ﬀﬁﬂﬃﬄﬅﬆĲĳ"))
    assert after <= before | repaired | ligatures | set(" \n…")

from __future__ import annotations

from ragworks.text.right_to_left import Glyph, is_right_to_left, mended

LAM, ALEF, BEH, TANWIN = "\u0644", "\u0627", "\u0628", "\u064b"


def glyphs(*texts: str) -> list[Glyph]:
    """From the right edge to the left, one glyph for each string, as pdfium reports its letters."""
    return [
        Glyph(letter, (100.0 - at * 5, 0.0, 104.0 - at * 5, 8.0)) for at, text in enumerate(texts) for letter in text
    ]


def test_the_letters_of_a_ligature_come_in_their_order() -> None:
    assert mended(glyphs(BEH, ALEF + LAM, BEH)) == BEH + LAM + ALEF + BEH


def test_letters_of_glyphs_of_their_own_stay() -> None:
    assert mended(glyphs(ALEF, LAM, BEH)) == ALEF + LAM + BEH
    assert mended(glyphs("fi", "x")) == "fix"


def test_a_vowel_mark_follows_its_letter() -> None:
    assert mended(glyphs(BEH, " ", TANWIN, BEH, ALEF)) == BEH + BEH + TANWIN + ALEF


def test_a_word_of_the_other_direction_is_set_apart() -> None:
    assert mended(glyphs("R", BEH, ALEF, "2")) == f"R {BEH}{ALEF}2"
    assert mended(glyphs(BEH, "x", "y")) == f"{BEH} xy"


def test_a_page_with_some_words_of_the_other_direction_keeps_its_own() -> None:
    assert is_right_to_left("שלום Python")
    assert not is_right_to_left("The word שלום is a greeting in the language that is spoken there")
    assert not is_right_to_left("")

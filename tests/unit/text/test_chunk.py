from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.assemble import Piece, assemble
from ragworks.text.chunk import chunk, embed_text
from ragworks.text.parse_markdown import parse_markdown
from ragworks.text.tokens import words
from ragworks.types import Chunk, Parsed
from strategies import anything, markdown, paged

TITLE = "Manual"
BUDGETS = st.integers(32, 200)


def tokens_of(made: Chunk) -> int:
    return len(words(embed_text(made, TITLE)))


def chunks_of(text: str, budget: int = 40) -> tuple[Chunk, ...]:
    return tuple(chunk(parse_markdown(text), TITLE, words, budget))


@given(st.one_of(paged(), markdown().map(parse_markdown), anything.map(parse_markdown)), BUDGETS)
def test_chunks_hold_all_of_the_text_in_order_and_once(parsed: Parsed, budget: int) -> None:
    covered = 0
    for ordinal, made in enumerate(chunk(parsed, TITLE, words, budget)):
        assert made.ordinal == ordinal
        assert made.text == parsed.text[made.start : made.end]
        assert made.text == made.text.strip() != ""
        assert not parsed.text[covered : made.start].strip()
        covered = made.end
    assert not parsed.text[covered:].strip()


@given(st.one_of(paged(), markdown().map(parse_markdown)), BUDGETS)
def test_no_chunk_is_larger_than_the_budget_with_all_that_is_embedded_before_it(parsed: Parsed, budget: int) -> None:
    assert all(tokens_of(made) <= budget for made in chunk(parsed, TITLE, words, budget))


@given(paged(), BUDGETS)
def test_no_chunk_crosses_a_page(parsed: Parsed, budget: int) -> None:
    for made in chunk(parsed, TITLE, words, budget):
        inside = [section for section in parsed.sections if section.start < made.end and made.start < section.end]
        assert {section.page for section in inside} == {made.page}


def test_short_sections_under_one_heading_become_one_chunk() -> None:
    (made,) = chunks_of("# Parts\n\n## Bell\n\nNine euros.\n\n## Lamp\n\nTwenty euros.")
    assert made.headings == ("Parts",)
    assert made.text.endswith("Twenty euros.")


def test_long_sections_stay_apart_under_their_own_headings() -> None:
    text = "".join(f"## {name}\n\n{'Some words about it. ' * 6}\n\n" for name in ("Bell", "Lamp"))
    assert [made.headings for made in chunks_of(f"# Parts\n\n{text}")][-1] == ("Parts", "Lamp")


def test_a_heading_is_embedded_with_every_piece_of_a_long_section() -> None:
    made = chunks_of("# Parts\n\n## Bell\n\n" + "It rings well and long. " * 40)
    assert len(made) > 3
    assert {part.prefix for part in made} == {"Parts > Bell"}


def test_a_section_is_cut_between_paragraphs_before_it_is_cut_between_sentences() -> None:
    paragraph = "One two three four. Five six seven eight nine."
    assert [made.text for made in chunks_of("\n\n".join([paragraph] * 4), budget=32)] == [
        f"{paragraph}\n\n{paragraph}"
    ] * 2


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    made = chunks_of("One two three four five six. " * 20)
    assert len(made) > 2
    assert all(part.text.endswith("six.") for part in made)


def test_pieces_of_a_long_section_are_of_similar_length() -> None:
    """Filling each chunk to the brim left a last one of a few words, which matched everything and said nothing."""
    sizes = [tokens_of(made) for made in chunks_of("One two three. " * 42, budget=100)]
    assert max(sizes) - min(sizes) <= 8


def test_a_word_that_is_too_long_is_cut_hard() -> None:
    made = chunks_of("x" * 5000)
    assert "".join(part.text for part in made) == "x" * 5000
    assert max(len(part.text) for part in made) <= 40 * 16


def test_later_pieces_of_a_table_are_embedded_with_its_header() -> None:
    rows = "\n".join(f"| part {number} | {number} EUR |" for number in range(30))
    first, *later = chunks_of(f"# Prices\n\n| Name | Price |\n|---|---|\n{rows}", budget=60)
    assert first.prefix == "Prices"
    assert later
    assert {part.prefix for part in later} == {"Prices\n| Name | Price |\n|---|---|"}
    assert all(part.text.startswith("| part") for part in later)


def test_a_header_too_wide_to_repeat_is_not_repeated() -> None:
    header = "| " + "wide " * 30 + "|"
    made = chunks_of(f"{header}\n|---|\n" + "| a | b |\n" * 30, budget=40)
    assert {part.prefix for part in made} == {""}


def test_an_endless_heading_leaves_most_of_the_budget_to_the_text() -> None:
    made = chunks_of("# " + "heading " * 200 + "\n\n" + "word " * 200, budget=60)
    assert all(tokens_of(part) <= 60 for part in made)
    assert all(len(words(part.prefix)) <= 20 for part in made)


def test_a_title_that_is_the_first_heading_is_embedded_once() -> None:
    (made,) = chunk(parse_markdown("# Manual\n\n## Bell\n\nRings."), TITLE, words, 40)
    assert embed_text(made, TITLE) == "Manual\n# Manual\n\n## Bell\n\nRings."


def test_a_text_is_tokenised_once() -> None:
    calls: list[int] = []

    def counting(text: str) -> list[tuple[int, int]]:
        calls.append(len(text))
        return words(text)

    text = "One two three four five. " * 400
    list(chunk(assemble([Piece(text)], "application/pdf"), TITLE, counting, 40))
    assert [size for size in calls if size > 100] == [len(text.strip())]


def test_a_long_text_is_cut_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spans of 200 MB of text at once took gigabytes."""
    monkeypatch.setattr("ragworks.text.chunk._WINDOW", 1000)
    calls: list[int] = []

    def counting(text: str) -> list[tuple[int, int]]:
        calls.append(len(text))
        return words(text)

    parsed = parse_markdown("One two three four five. " * 400)
    assert "".join(made.text for made in chunk(parsed, TITLE, counting, 40)).replace(" ", "") == parsed.text.replace(
        " ", ""
    )
    assert max(calls) <= 1000


@given(st.one_of(paged(), markdown().map(parse_markdown)), BUDGETS, st.integers(20, 400))
def test_however_small_the_window_is_chunks_hold_all_of_the_text_within_the_budget(
    parsed: Parsed, budget: int, window: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragworks.text.chunk._WINDOW", window)
        made = list(chunk(parsed, TITLE, words, budget))
    assert all(tokens_of(one) <= budget for one in made)
    assert "".join("".join(one.text for one in made).split()) == "".join(parsed.text.split())


def test_a_table_that_goes_on_in_the_next_window_keeps_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragworks.text.chunk._WINDOW", 300)
    rows = "\n".join(f"| part {number} | {number} EUR |" for number in range(60))
    first, *later = chunks_of(f"# Prices\n\n| Name | Price |\n|---|---|\n{rows}", budget=60)
    assert first.prefix == "Prices"
    assert {part.prefix for part in later} == {"Prices\n| Name | Price |\n|---|---|"}


@pytest.mark.parametrize(
    "hostile", ["a " * 100_000, "x" * 200_000, "# h\n" * 20_000, "| a |\n|---|\n" * 20_000, "。" * 50_000]
)
def test_the_work_grows_with_the_text_and_not_faster(hostile: str) -> None:
    """Each of these took minutes in an implementation that looked at the whole text for every piece."""
    assert chunks_of(hostile, budget=384)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.reading_order import Region, page_text


def at(left: float, line: float, text: str, width: float = 300, spacing: float = 14) -> Region:
    """A region of height 10, ``line`` lines below the top."""
    return Region(left, line * spacing, left + width, line * spacing + 10, text)


def column(left: float, words: str, first: float = 0) -> list[Region]:
    return [at(left, first + line, word) for line, word in enumerate(words.split())]


def test_two_columns_are_read_one_after_the_other() -> None:
    assert page_text(column(350, "d e f") + column(0, "a b c")).split() == list("abcdef")


def test_a_title_across_two_columns_comes_before_both() -> None:
    regions = [at(100, 0, "Title", 450), *column(0, "a b c", 2), *column(350, "d e f", 2)]
    assert page_text(regions).split() == ["Title", *"abcdef"]


def test_a_figure_across_two_columns_parts_what_is_above_from_what_is_below() -> None:
    above = column(0, "a b c") + column(350, "d e f")
    below = column(0, "g h i", 6) + column(350, "j k l", 6)
    assert page_text([*above, at(0, 4, "Figure", 650), *below]).split() == [*"abcdef", "Figure", *"ghijkl"]


def test_cells_of_a_row_stay_together() -> None:
    rows = [("Part", "Price"), ("Bell", "9"), ("Brake", "20"), ("Frame", "300")]
    regions = [at(x, line, cell, 40) for line, row in enumerate(rows) for x, cell in zip((0, 200), row, strict=True)]
    assert page_text(regions) == "Part Price\nBell 9\nBrake 20\nFrame 300"


def test_a_row_that_is_a_little_askew_is_one_line() -> None:
    assert page_text([Region(0, 0, 50, 10, "left"), Region(100, 3, 150, 13, "right")]) == "left right"


def test_paragraphs_are_apart() -> None:
    assert page_text([at(0, 0, "one"), at(0, 1, "one"), at(0, 3, "two")]) == "one\none\n\ntwo"


def test_no_regions_are_no_text() -> None:
    assert page_text([]) == ""


REGIONS = st.builds(
    lambda left, top, width, height, text: Region(left, top, left + width, top + height, text),
    st.floats(0, 1000),
    st.floats(0, 1000),
    st.floats(0, 1000),
    st.floats(0, 100),
    st.sampled_from(["bell", "frame", "x"]),
)


@given(st.lists(REGIONS, max_size=30))
def test_no_region_is_lost_or_doubled(regions: list[Region]) -> None:
    assert sorted(page_text(regions).split()) == sorted(region.text for region in regions)


@given(st.lists(REGIONS, max_size=20, unique_by=lambda one: (one.left, one.top + one.bottom, one.top)), st.randoms())
def test_the_order_in_which_regions_are_found_does_not_matter(regions: list[Region], random: object) -> None:
    shuffled = list(regions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert page_text(shuffled).split() == page_text(regions).split()

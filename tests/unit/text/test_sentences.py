import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.sentences import MAX_CHARS, sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith paid 3.5 million. He left.", ["Dr. Smith paid 3.5 million.", "He left."]),
        ("Use a cache, e.g. Redis. It helps.", ["Use a cache, e.g. Redis.", "It helps."]),
        ("In the U.S. Senate it fell. Yes.", ["In the U.S. Senate it fell.", "Yes."]),
        ("J. R. Tolkien wrote it. I read it.", ["J. R. Tolkien wrote it.", "I read it."]),
        ("See Fig. 3 there. He said no. Then he left.", ["See Fig. 3 there.", "He said no.", "Then he left."]),
        ('"Is it so?" he asked. Yes.', ['"Is it so?" he asked.', "Yes."]),
        ("It wraps\nover lines. Then ends.", ["It wraps\nover lines.", "Then ends."]),
        ("A paragraph without a stop\n\nAnother one", ["A paragraph without a stop", "Another one"]),
        ("A paragraph\n  \t\nAnother", ["A paragraph", "Another"]),
        ("# Part 1. Start\nThe body.", ["# Part 1. Start", "The body."]),
        ("Steps:\n- first\n- second\n1. third. And more.", ["Steps:", "- first", "- second", "1. third.", "And more."]),
        ("| a. B | c |\n| 1 | 2 |\nAfter.", ["| a. B | c |", "| 1 | 2 |", "After."]),
        ("これは文です。次の文。", ["これは文です。", "次の文。"]),
    ],
)
def test_text_is_split_where_a_reader_would(text, expected):
    assert split(text) == expected


def test_a_text_without_punctuation_is_cut_at_white_space():
    pieces = split("word " * 500)
    assert all(len(piece) <= MAX_CHARS and not piece.startswith(("ord", "rd")) for piece in pieces)
    assert " ".join(pieces).split() == ["word"] * 500


@given(st.text(st.sampled_from(list('aB1 .!?\n\r\t#|-*)"。é\u2028[]')), max_size=300))
def test_spans_are_in_order_trimmed_and_leave_out_only_white_space(text):
    spans = sentences(text)
    edges = [0, *[edge for span in spans for edge in span], len(text)]
    assert edges == sorted(edges)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    outside = "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    assert not outside.strip()


def test_a_long_text_is_split_in_linear_time():
    """Quadratic scanning of 4 MB would outlast the test's timeout by far."""
    assert len(sentences("Some words here. " * 250_000)) == 250_000

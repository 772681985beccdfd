"""What a model is told and what its citations point at: pure, so properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.testing import a_hit
from ragworks.text.cite import cite
from ragworks.text.prompt import messages
from ragworks.text.quoting import quotes
from ragworks.types import Draft

# What a document could try: our own words, fences, markers.
hostile = st.lists(
    st.sampled_from(
        ["</passage 1", " 0123456789abcdef>", "\n", "Question: ", "[1]", "[2, 3]", "lasts", "é", "<passage 2 "]
    )
).map("".join)


@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=4), hostile)
def test_each_passage_lies_between_fences_of_its_own_that_no_document_holds(documents, question) -> None:
    hits = [a_hit(text, name) for text, name in documents]
    asked = messages(question, (), hits)[-1]["content"]
    fence = asked.split("lines that hold ")[1].split(")")[0]
    assert all(fence not in text + name for text, name in documents)
    rest = asked
    for number in range(1, len(hits) + 1):
        opening, closing = f"<passage {number} {fence}>\n", f"\n</passage {number} {fence}>\n"
        assert rest.count(opening) == rest.count(closing) == 1
        _, rest = rest.split(opening)
        _, rest = rest.split(closing)
    assert rest == f"\nQuestion: {question}"


@given(hostile)
def test_what_looks_like_a_citation_in_a_passage_is_none_in_the_prompt(text) -> None:
    asked = messages("q", (), [a_hit(text, "d")])[-1]["content"]
    assert "[1]" not in asked
    assert "[2, 3]" not in asked


@given(st.lists(st.sampled_from(["It lasts ", "41 minutes", " [1]", "[2,1]", " [9]", ". ", "Nobody"])).map("".join))
def test_every_marker_that_names_a_hit_resolves_and_no_other(answer) -> None:
    hits = [a_hit("It is light. It lasts 41 minutes.", start=7), a_hit("Closed.", "b")]
    _, citations, removed = cite(answer, Draft(quotes(answer, hits), False, {}), hits)
    assert all(one.marker in (1, 2) for one in citations)
    assert removed == answer.count("[9]")


def test_a_citation_points_at_the_sentence_that_says_it_and_at_the_whole_hit_where_none_does() -> None:
    hits = [a_hit("It is light. The battery lasts 41 minutes. It is red.")]
    (quote,) = quotes("The battery lasts 41 minutes. [1]", hits).values()
    assert hits[0].text[quote.start : quote.end] == "The battery lasts 41 minutes."
    (quote,) = quotes("Der Akku reicht lange [1].", hits).values()
    assert (quote.start, quote.end) == (0, len(hits[0].text))

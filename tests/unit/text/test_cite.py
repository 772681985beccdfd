import re

from hypothesis import given
from hypothesis import strategies as st

from ragworks.testing import a_hit
from ragworks.text.cite import cite
from ragworks.types import Draft, Hit, Quote

HITS = (a_hit("The sky is blue. Grass is green.", "sky", start=100), a_hit("Water is wet.", "water"))


def draft(**quotes: tuple[int, int, int]) -> Draft:
    return Draft({int(name[1:]): Quote(*span) for name, span in quotes.items()}, abstained=False, usage={})


def test_a_citation_points_into_the_document_and_quotes_it():
    answer, citations, removed = cite("Grass is green. [1]", draft(n1=(1, 17, 32)), HITS)
    (citation,) = citations
    assert (answer, removed) == ("Grass is green. [1]", 0)
    assert (citation.document_id, citation.start, citation.end) == ("sky", 117, 132)
    assert citation.quote == "Grass is green."


def test_a_marker_that_does_not_resolve_is_removed_with_its_space_and_counted():
    answer, citations, removed = cite("Blue [1], or red [7]. Wet [9][2].", draft(n1=(1, 0, 16), n2=(2, 0, 13)), HITS)
    assert answer == "Blue [1], or red. Wet[2]."
    assert [citation.marker for citation in citations] == [1, 2]
    assert removed == 2


def test_several_numbers_in_one_bracket_are_several_markers():
    answer, citations, removed = cite("Both [1, 2, 3].", draft(n1=(1, 0, 3), n2=(2, 0, 5)), HITS)
    assert (answer, removed) == ("Both [1][2].", 1)
    assert len(citations) == 2


def test_a_marker_used_twice_is_one_citation():
    answer, citations, _ = cite("A [1]. B [1].", draft(n1=(1, 0, 3)), HITS)
    assert answer == "A [1]. B [1]."
    assert len(citations) == 1


def test_quotes_outside_the_hit_blank_quotes_and_unknown_hits_do_not_resolve():
    bad = draft(n1=(1, 0, 999), n2=(1, 16, 17), n3=(9, 0, 3), n4=(0, 0, 3), n5=(1, -3, 3), n6=(1, 5, 5))
    answer, citations, removed = cite("x [1] [2] [3] [4] [5] [6]", bad, HITS)
    assert (answer, citations, removed) == ("x", (), 6)


def test_a_hit_whose_offsets_contradict_its_text_is_never_cited():
    lying = Hit("d", "d#0", 1.0, "four", "d", None, 0, 99, (), {})
    assert cite("x [1]", draft(n1=(1, 0, 4)), [lying]) == ("x", (), 1)


def test_an_answer_that_abstained_cites_nothing():
    assert cite("No idea [1].", Draft({1: Quote(1, 0, 3)}, True, {}), HITS) == ("No idea.", (), 1)


@given(
    st.lists(st.sampled_from(["word ", "[1]", " [2]", "[3, 1]", "[x]", "[", "1]", ". "]), max_size=20).map("".join),
    st.dictionaries(st.integers(0, 4), st.tuples(st.integers(0, 4), st.integers(-2, 40), st.integers(-2, 40))),
)
def test_markers_in_the_answer_are_exactly_the_citations_and_each_quote_is_exact(answer, quotes):
    checked, citations, _ = cite(answer, Draft({n: Quote(*q) for n, q in quotes.items()}, False, {}), HITS)
    markers = {int(number) for number in re.findall(r"\[(\d+)\]", checked)}
    assert markers == {citation.marker for citation in citations}
    for citation in citations:
        hit = next(hit for hit in HITS if hit.document_id == citation.document_id)
        assert hit.text[citation.start - hit.start : citation.end - hit.start] == citation.quote != ""

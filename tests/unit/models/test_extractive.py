import dataclasses
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ragworks.models.extractive import (
    CLOSE,
    MAX_CANDIDATES,
    MAX_SENTENCES,
    NEAR_CHARS,
    ExtractiveGenerator,
    _shown,
    choose,
    shortlist,
)
from ragworks.testing import a_hit
from ragworks.types import Draft

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]


class Scripted:
    """A scorer that reads each passage's score from a table; others score very low."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def score(self, question, passages):
        return [max((s for word, s in self.scores.items() if word in text), default=-9.0) for text in passages]


async def answer(hits, **scores: float) -> tuple[str, Draft]:
    generator = ExtractiveGenerator(Scripted(**scores), 0.0)
    *pieces, draft = [piece async for piece in generator.generate("which?", (), hits)]
    return "".join(pieces), draft


async def test_the_best_sentence_comes_first_and_one_far_behind_is_left_out():
    hits = [a_hit("This is alpha. That was beta."), a_hit("Here comes gamma.")]
    text, _ = await answer(hits, alpha=1.0, gamma=1.0 + CLOSE, beta=0.5)
    assert text == "Here comes gamma. [2] This is alpha. [1]"


async def test_two_sentences_of_one_hit_are_quoted_in_reading_order_under_one_marker():
    hit = a_hit("It was alpha. Filler stands here. Then beta came.")
    text, draft = await answer([hit], alpha=1.0, beta=2.0)
    assert text == "It was alpha. [1] Then beta came. [1]"
    quote = draft.quotes[1]
    assert hit.text[quote.start : quote.end] == hit.text


async def test_a_sentence_far_away_in_the_same_hit_is_not_quoted():
    filler = "Nothing. " * (NEAR_CHARS // 5)
    text, _ = await answer([a_hit(f"It was alpha. {filler}Then beta came.")], alpha=2.0, beta=1.0)
    assert text == "It was alpha. [1]"


async def test_a_list_item_is_shown_without_its_mark_and_on_one_line():
    text, _ = await answer([a_hit("- alpha is\n  the one")], alpha=1.0)
    assert text == "alpha is the one [1]"


def test_the_shortlist_prefers_shared_words_and_early_hits():
    hits = [
        a_hit("Nothing here. " * 30),
        a_hit("The cache holds vectors. Other words."),
        a_hit("The cache holds vectors."),
    ]
    best = shortlist("what does the cache hold", hits)
    assert len(best) == MAX_CANDIDATES
    assert [(one.hit, one.text) for one in best[:2]] == [
        (2, "The cache holds vectors."),
        (3, "The cache holds vectors."),
    ]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-5, 5)), max_size=12))
def test_choices_are_supported_close_to_the_best_few_and_not_alike(scored):
    hits = [a_hit(f"{name} number {place}.") for place, (name, _) in enumerate(scored)]
    candidates = [shortlist(name, [hit])[0] for (name, _), hit in zip(scored, hits, strict=True)]
    scores = [float(score) for _, score in scored]
    chosen = choose(candidates, scores, 0.0)
    assert bool(chosen) == any(score >= 0.0 for score in scores)
    assert len(chosen) <= MAX_SENTENCES
    by_text = {id(one): score for one, score in zip(candidates, scores, strict=True)}
    assert all(by_text[id(one)] >= max(scores) - CLOSE for one in chosen)


async def test_a_heading_is_never_the_answer_but_helps_to_score_the_sentence_below_it():
    hit = dataclasses.replace(a_hit("## About alpha\n\nIt weighs much."), headings=("Guide", "About alpha"))
    text, _ = await answer([hit], alpha=3.0)
    assert text == "It weighs much. [1]"


async def test_a_question_in_a_passage_is_quoted_only_with_what_follows_it():
    """A cross-encoder likes nothing better than the question itself, which answers nobody."""
    text, _ = await answer([a_hit("How long is alpha? Forty metres. The end.")], alpha=3.0, Forty=2.0)
    assert text == "How long is alpha? Forty metres. [1]"
    text, draft = await answer([a_hit("Forty metres. How long is alpha?")], alpha=3.0)
    assert draft.abstained


def test_the_row_of_a_table_reads_as_words_and_is_quoted_as_it_stands() -> None:
    assert _shown("| Battery | 3 years or 700 cycles |") == "Battery: 3 years or 700 cycles"
    assert _shown("| a | b | c |") == "a: b, c"
    assert _shown("| alone |") == "alone"


def test_a_sentence_is_scored_under_the_nearest_heading_of_its_passage() -> None:
    """A chunk that joins sections has the headings that they share; "E07" means nothing under the manual's title."""
    text = "## Error codes\n\n- **E07**: the motor is too hot.\n\n## Care\n\nWash it with water."
    hit = replace(a_hit(text), headings=("Manual",))
    found = {one.text: one.context for one in shortlist("What does error E07 mean?", [hit])}
    assert found == {"- **E07**: the motor is too hot.": "Error codes", "Wash it with water.": "Care"}

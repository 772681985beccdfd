import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.policies.batching import BatchSettings, WaitingText, choose

SETTINGS = BatchSettings(batch_size=8, batch_tokens=100, max_wait_s=0.0)

lines = st.lists(
    st.builds(
        WaitingText,
        kind=st.sampled_from(["passage", "question"]),
        tokens=st.integers(0, 150),
        age_s=st.integers(0, 20).map(float),
        turn=st.integers(0, 5),
    ),
    max_size=40,
)


def passages(*tokens: int, age_s: float = 0.0) -> list[WaitingText]:
    return [WaitingText("passage", count, age_s) for count in tokens]


def test_an_empty_line_takes_nothing_and_waits_for_nothing():
    decision = choose(SETTINGS, [])
    assert (decision.take, decision.wait_s) == ((), None)


def test_a_single_text_goes_alone():
    assert choose(SETTINGS, passages(10)).take == (0,)


def test_a_text_over_the_budget_goes_alone():
    assert choose(SETTINGS, passages(500, 10, age_s=1.0)).take == (0,)


def test_questions_overtake_older_passages():
    line = [*passages(10, 10, age_s=50.0), WaitingText("question", 10, 0.0)]
    decision = choose(SETTINGS, line)
    assert decision.take == (2,)
    assert decision.reason == "questions go first"


def test_the_oldest_goes_with_its_equals_in_length_not_with_its_neighbours_in_line():
    line = [WaitingText("passage", 20, 9.0), *passages(90, 21, 80, 19, 22)]
    assert set(choose(SETTINGS, line).take) == {0, 2, 4, 5}


def test_the_caller_whose_turn_it_is_gets_the_batch_however_old_the_texts_of_others_are():
    line = [*passages(90, 90, 90, age_s=50.0), WaitingText("passage", 10, 0.0, turn=-1)]
    decision = choose(SETTINGS, line)
    assert (decision.take, decision.seed) == ((3,), 3)


def test_passages_may_be_held_back_to_fill_a_batch_but_questions_never():
    patient = BatchSettings(batch_size=8, batch_tokens=100, max_wait_s=2.0)
    held = choose(patient, passages(10, 10, age_s=0.5))
    assert (held.take, held.wait_s) == ((), 1.5)
    assert choose(patient, [WaitingText("question", 10, 0.0)]).take == (0,)


@pytest.mark.parametrize("line", [passages(60, 60), passages(*[1] * 8), passages(10, age_s=2.0)])
def test_a_full_batch_or_an_old_text_is_not_held_back(line):
    assert choose(BatchSettings(batch_size=8, batch_tokens=100, max_wait_s=2.0), line).take


@given(lines)
def test_a_batch_is_one_kind_within_budget_shortest_first_and_holds_the_oldest_of_the_next_caller(line):
    decision = choose(SETTINGS, line)
    take = decision.take
    if not line:
        return
    kinds = {line[place].kind for place in take}
    lane = [text for text in line if text.kind in kinds]
    tokens = [line[place].tokens for place in take]
    assert kinds == ({"question"} if any(text.kind == "question" for text in line) else {"passage"})
    assert len(take) == 1 or max(tokens) * len(take) <= SETTINGS.batch_tokens
    assert len(take) <= SETTINGS.batch_size
    assert tokens == sorted(tokens)
    assert decision.seed in take
    seed = line[decision.seed]
    assert (seed.turn, -seed.age_s) == min((text.turn, -text.age_s) for text in lane)


@given(lines)
def test_repeated_choices_take_every_text_exactly_once_and_no_passage_before_the_last_question(line):
    waiting, taken = dict(enumerate(line)), []
    while waiting:
        places = list(waiting)
        batch = [places[at] for at in choose(SETTINGS, list(waiting.values())).take]
        assert batch
        taken += batch
        for place in batch:
            del waiting[place]
    assert sorted(taken) == list(range(len(line)))
    kinds = [line[place].kind for place in taken]
    assert kinds == sorted(kinds, reverse=True)

"""Reading judged sets, and what their scores are made of."""

from __future__ import annotations

import json

import pytest

from ragworks.errors import InvalidInput
from ragworks.evaluate import Score, _percentile, read_dataset, report, scores

CORPUS = [{"_id": "d1", "title": "One", "text": "first\u2028text"}, {"_id": "d2", "title": "Only a title", "text": ""}]
QUERIES = [
    {"_id": "q1", "text": "what is first?", "history": ["user: hello", "agent: hi: there"]},
    {"_id": "q2", "text": "never judged"},
    {"_id": "q3", "text": "judged, and nothing is relevant"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq3\td2\t0\n"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "corpus.jsonl", CORPUS)
    write(tmp_path / "queries.jsonl", QUERIES)
    (tmp_path / "qrels.tsv").write_text(QRELS)
    return tmp_path


def write(file, rows):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_only_questions_with_a_relevant_document_are_asked(folder):
    (question,) = read_dataset(str(folder)).questions
    assert (question.id, question.gains) == ("q1", {"d1": 2.0})


def test_the_agents_turns_are_the_assistants(folder):
    assert read_dataset(str(folder)).questions[0].history == (
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi: there"},
    )


def test_a_line_separator_inside_a_text_does_not_end_the_line(folder):
    assert read_dataset(str(folder)).documents[0]["text"] == "first\u2028text"


def test_a_document_that_is_only_a_title_is_searchable_by_it(folder):
    assert read_dataset(str(folder)).documents[1]["text"] == "Only a title"


def test_the_judgements_may_lie_where_beir_puts_them(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert len(read_dataset(str(folder)).questions) == 1


def test_another_corpus_gets_another_collection(folder):
    before = read_dataset(str(folder)).collection
    write(folder / "corpus.jsonl", CORPUS[:1])
    assert read_dataset(str(folder)).collection != before


def test_a_wrong_folder_is_told_what_was_expected_and_what_came(tmp_path):
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(InvalidInput, match=r"expected corpus\.jsonl, .*found readme\.md"):
        read_dataset(str(tmp_path))
    with pytest.raises(InvalidInput, match="no such folder"):
        read_dataset(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", "{broken\n", r"corpus\.jsonl line 1 is not JSON"),
        ("corpus.jsonl", "[1]\n", "must be a JSON object"),
        ("corpus.jsonl", '{"text": "no id"}\n', "every line needs '_id'"),
        ("qrels.tsv", "q1 d1 1\n", r"qrels\.tsv line 1 must be"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "line 2: the score must be a number"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nother\td1\t1\n", "no judged question in common"),
    ],
)
def test_a_broken_file_is_named_with_the_line_that_breaks_it(folder, file, content, message):
    (folder / file).write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_dataset(str(folder))


def test_scores_are_means_over_questions():
    found = scores([["a"], ["x"]], [{"a": 1}, {"b": 1}])
    assert found == {"ndcg_at_10": 0.5, "recall_at_10": 0.5, "recall_at_100": 0.5, "mrr_at_10": 0.5}


def test_every_set_counts_the_same_in_the_mean():
    small = Score("s", 1, 0, 1, 1.0, 1.0, 1.0, 1.0, {}, 0.1)
    large = Score("l", 1000, 0, 1000, 0.0, 0.5, 0.5, 0.5, {}, 0.1)
    assert report([small, large])["mean"] == {
        "ndcg_at_10": 0.5,
        "recall_at_10": 0.75,
        "recall_at_100": 0.75,
        "mrr_at_10": 0.75,
    }


def test_percentiles_are_values_that_occurred():
    hundred = [float(number) for number in range(1, 101)]
    assert [_percentile(hundred, share) for share in (50, 95, 99)] == [50, 95, 99]
    assert _percentile([7.0], 99) == 7.0

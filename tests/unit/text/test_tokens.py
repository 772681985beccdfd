from __future__ import annotations

import json

from hypothesis import given

from ragworks.text import tokens
from ragworks.text.tokens import wordpiece, words
from strategies import anything

VOCABULARY = {
    piece: number for number, piece in enumerate(["[UNK]", "the", "bike", "##s", "e", "##e", "un", "##til", "."])
}
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": VOCABULARY,
        },
    }
)  # fmt: skip


def test_pieces_of_words_have_their_own_spans() -> None:
    text = "the bikes until."
    assert [text[start:end] for start, end in wordpiece(TOKENIZER)(text)] == ["the", "bike", "s", "un", "til", "."]


def test_spans_count_code_points_and_not_bytes() -> None:
    text = "🚲 ÉÉ 中 the"
    assert [text[start:end] for start, end in wordpiece(TOKENIZER)(text)] == ["🚲", "É", "É", "中", "the"]


def test_a_text_of_any_length_is_tokenised_to_its_end() -> None:
    text = "the bikes " * (tokens._AT_ONCE // 4)
    spans = wordpiece(TOKENIZER)(text)
    assert len(spans) == 3 * (tokens._AT_ONCE // 4)
    assert text[slice(*spans[-1])] == "s"


@given(anything)
def test_spans_are_in_order_within_the_text_and_never_empty(text: str) -> None:
    for tokenize in (words, wordpiece(TOKENIZER)):
        end = 0
        for start, stop in tokenize(text):
            assert end <= start < stop <= len(text)
            end = stop

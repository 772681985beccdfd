"""Text to token spans: by the words of any language, or by the tokenizer of a model."""

from __future__ import annotations

import re
from collections.abc import Callable

from tokenizers import Tokenizer

Tokenize = Callable[[str], list[tuple[int, int]]]
"""The spans of a text's tokens in order, in code points; none is empty, none overlap."""

_WORD = re.compile(r"\w+|[^\w\s]")
# One call of the tokenizer holds several strings per token: this bounds it to some ten megabytes.
_AT_ONCE = 32 * 1024
_BREAK = re.compile(r"\s")


def words(text: str) -> list[tuple[int, int]]:
    """Spans of words and of single signs: a tokenizer without a model.

    >>> words("Don't stop.")
    [(0, 3), (3, 4), (4, 5), (6, 10), (10, 11)]
    """
    return [found.span() for found in _WORD.finditer(text)]


def wordpiece(tokenizer_json: str) -> Tokenize:
    """The tokenizer that this JSON describes (the text of a model's ``tokenizer.json``), never truncating."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokenize(text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        at = 0
        while at < len(text):
            end = _piece_end(text, at)
            encoded = tokenizer.encode(text[at:end], add_special_tokens=False)
            spans += [(at + start, at + stop) for start, stop in encoded.offsets if start < stop]
            at = end
        return spans

    return tokenize


def _piece_end(text: str, at: int) -> int:
    """Where the piece from ``at`` may end without cutting a word: at the first whitespace past the limit."""
    if len(text) - at <= _AT_ONCE:
        return len(text)
    found = _BREAK.search(text, at + _AT_ONCE, at + 2 * _AT_ONCE)
    return found.end() if found else at + _AT_ONCE

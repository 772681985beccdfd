"""Texts to token ids, as far as a model with a limit reads them, how long they are, and what a network is fed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

HEAD = 16
"""Characters for each token of the limit that are tokenised first; only a text of long words has fewer tokens there."""


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[Encoding]:
    """Each text, cut to ``max_tokens``, which is the limit that the tokenizer truncates at.

    Of a text far over the limit only its head is read if that is over the limit already: a megabyte takes 0.5 s to
    tokenise, in which no question can be answered, to use its first 512 tokens.
    """
    limit = HEAD * max_tokens
    found: list[Encoding] = tokenizer.encode_batch_fast([_head(text, limit) for text in texts]) if texts else []
    for place, text in enumerate(texts):
        if len(text) > limit and untruncated(found[place]) <= max_tokens:
            found[place] = tokenizer.encode_batch_fast([text])[0]
    return found


def untruncated(encoded: Encoding) -> int:
    """Tokens including what truncation cut off; each cut piece repeats the signs around the text."""
    signs = sum(encoded.special_tokens_mask)
    return len(encoded.ids) + sum(len(piece.ids) - signs for piece in encoded.overflowing)


def padded(rows: Sequence[Encoding], pad_id: int = 0) -> dict[str, NDArray[np.int64]]:
    """Every input, (n, tokens), with the rows padded to the longest."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    feed = {name: np.full(shape, pad_id if name == "input_ids" else 0, np.int64) for name in INPUTS}
    for place, row in enumerate(rows):
        feed["input_ids"][place, : len(row.ids)] = row.ids
        feed["attention_mask"][place, : len(row.ids)] = 1
        feed["token_type_ids"][place, : len(row.ids)] = row.type_ids
    return feed


def _head(text: str, limit: int) -> str:
    """The text, or its first ``limit`` characters without the word that the cut would split."""
    return text if len(text) <= limit else text[:limit].rpartition(" ")[0]

"""A passage scorer without weights: how much of the question's words a passage covers. For tests and examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragworks.text.words import content_words

_SCALE = 16.0
"""Maps the covered share [0, 1] onto [-8, 8], the range of the cross-encoder's logits, so that one threshold fits."""


class LexicalScorer:
    """The share of the question's words, longer words counting more, that occur in the passage."""

    name = "lexical"

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        weights = {word: len(word) ** 0.5 for word in content_words(question)}
        total = sum(weights.values()) or 1.0
        shares = [
            sum(weights[word] for word in content_words(passage) & weights.keys()) / total for passage in passages
        ]
        return np.asarray([_SCALE * (share - 0.5) for share in shares], np.float32)

"""How good a ranking is, given judgements: the measures of the TREC and BEIR evaluations.

A ranking is document ids, best first, each once. ``gains`` maps judged ids to their gain; above 0 means relevant, and
an id that is absent counts as 0. All measures lie in [0, 1]; a ranking shorter than ``k`` is scored as it is. Each
raises ValueError if no judged document is relevant, because then the measure has no meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum, log2


def ndcg(ranking: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """Normalised discounted cumulative gain of the first ``k``.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, in the form of
    trec_eval's ``ndcg_cut`` that BEIR reports: the gain itself as numerator, log2(rank + 1) as discount, and the best
    order of all judged documents as the ideal.

    >>> round(ndcg(["b", "a"], {"a": 1}, 10), 4)
    0.6309
    """
    ideal = sorted(_relevant(gains).values(), reverse=True)
    return _discounted([max(gains.get(one, 0), 0) for one in ranking[:k]]) / _discounted(ideal[:k])


def recall(ranking: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """The share of the relevant documents that are among the first ``k`` (trec_eval's ``recall``).

    >>> recall(["a", "x"], {"a": 1, "b": 2}, 10)
    0.5
    """
    relevant = _relevant(gains)
    return len(relevant.keys() & set(ranking[:k])) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """One over the rank of the first relevant document, 0 if none is among the first ``k``.

    Its mean over questions is MRR: Voorhees, "The TREC-8 Question Answering Track Report", 1999.

    >>> reciprocal_rank(["x", "a"], {"a": 1}, 10)
    0.5
    """
    relevant = _relevant(gains)
    return next((1 / rank for rank, one in enumerate(ranking[:k], start=1) if one in relevant), 0.0)


def _relevant(gains: Mapping[str, float]) -> dict[str, float]:
    relevant = {one: gain for one, gain in gains.items() if gain > 0}
    if not relevant:
        raise ValueError("no judged document is relevant")
    return relevant


def _discounted(gains: Sequence[float]) -> float:
    return fsum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))

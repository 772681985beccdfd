"""What a user may import: a change of this list is a change of the interface."""

from __future__ import annotations

import ragworks


def test_the_public_names_are_these() -> None:
    expected = [
        "Answer",
        "Citation",
        "Document",
        "Hit",
        "JobDocument",
        "RagworksError",
        "SearchResult",
        "Turn",
        "Works",
        "open",
    ]
    assert ragworks.__all__ == expected
    assert all(getattr(ragworks, name) is not None for name in expected)

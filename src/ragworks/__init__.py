"""A RAG server that answers with pip install alone, and never loses an accepted document.

Users start with ``ragworks.open`` or the command ``ragworks``; implementers with ``ingest.py`` and ``answer.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragworks.errors import RagworksError as RagworksError
    from ragworks.types import Answer as Answer
    from ragworks.types import Citation as Citation
    from ragworks.types import Document as Document
    from ragworks.types import Hit as Hit
    from ragworks.types import JobDocument as JobDocument
    from ragworks.types import SearchResult as SearchResult
    from ragworks.types import Turn as Turn
    from ragworks.works import Works as Works
    from ragworks.works import open as open

__version__ = "0.1.0"

_HOMES = {
    "errors": ("RagworksError",),
    "types": ("Answer", "Citation", "Document", "Hit", "JobDocument", "SearchResult", "Turn"),
    "works": ("Works", "open"),
}

__all__ = [  # derived, so that no name is listed twice
    *sorted(name for names in _HOMES.values() for name in names),
]


def __getattr__(name: str) -> Any:
    """Public names are loaded on first use: ``ragworks --help`` and the workers need none of the libraries behind."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ragworks.{module}"), name)
    raise AttributeError(f"module 'ragworks' has no attribute {name!r}")

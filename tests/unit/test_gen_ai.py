"""The names by which others know what a model did."""

from __future__ import annotations

import re
from pathlib import Path

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from ragworks import gen_ai

NEWER = {"gen_ai.retrieval.top_k"}
"""Of the conventions' own repository, which took them over from the package."""


def test_every_name_is_one_of_the_conventions() -> None:
    """A name with a letter wrong is shown by every backend, and understood by none."""
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)} | NEWER
    named = set(re.findall(r"gen_ai(?:\.[a-z_]+)+", Path(gen_ai.__file__).read_text(encoding="utf-8")))
    assert len(named) > 10
    assert named - known == set()

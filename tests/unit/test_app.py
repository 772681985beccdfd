"""What the composition root refuses before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragworks.app import build
from ragworks.errors import InvalidSettings
from ragworks.settings import load


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_folder": "/m", "endpoint": {"model": "m"}}, "name two models; keep one of them"),
        ({"query_prefix": "query: "}, "bge-small-en-v1.5 brings its own"),
        ({"endpoint": {"model": "m", "urls": ["api.openai.com/v1"]}}, "must be like http://127.0.0.1:8080/v1"),
        (
            {"endpoint": {"model": "m", "urls": ["https://me:pass@host/v1"]}},
            "without a name, a password or a query .*host 'host'",
        ),
        ({"endpoint": {"model": "m", "urls": ["http://[/v1"]}}, "must be like"),
        ({"endpoint": {"model": "m", "urls": ["http://a:port/v1"]}}, "must be like"),
        ({"endpoint": {"model": "m", "urls": ["http://a/v1", "http://a/v1/"]}}, "a/v1 more than once"),
        ({"endpoint": {"model": "m"}, "replicas": {"runtime": "process"}}, r"are its endpoint\.urls"),
        ({"endpoint": {"model": "m", "urls": []}}, "must name at least one"),
    ],
)
def test_an_embedding_model_that_cannot_be_meant_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    settings = load(environ={}, server={"data": str(tmp_path / "data")}, embeddings_service=given)
    with pytest.raises(InvalidSettings, match=said) as caught:
        build(settings)
    assert "me:pass" not in str(caught.value)
    assert not (tmp_path / "data").exists()

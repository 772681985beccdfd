"""Embedding engines that ask a slow model server on loopback, one text after another; a settings file names them as
"waiting_engines:embeddings"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import httpx

from ragworks.errors import ModelMissing
from ragworks.models.hashing import HashingEmbedder
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.settings import EmbeddingsSettings
from ragworks.types import TextKind, Vectors

URL = "MODEL_SERVER_URL"
BROKEN = "MODEL_IS_MISSING"
"""Names a file; while it is there, no model can be made."""


class Waiting(HashingEmbedder):
    """Says what the model server says of the last text, which is nothing but that it is done."""

    def __init__(self) -> None:
        if Path(os.environ[BROKEN]).exists():
            raise ModelMissing("somebody took the model away; put it back")
        self._http = httpx.Client(base_url=os.environ[URL], timeout=60)

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        if list(texts) != ["ragworks"]:  # the proof at its start
            self._http.post("/embeddings", json={"model": "slow", "input": list(texts)}).raise_for_status()
        return super().embed(texts, kind)


def embeddings(settings: EmbeddingsSettings) -> EmbeddingEngine:
    return EmbeddingEngine(settings, lambda _: Waiting())

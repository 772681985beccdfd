"""What a replica is made of, in whichever process: importable by name, from arguments that can travel."""

from __future__ import annotations

from ragworks.models.choosing import embedding_model
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.settings import EmbeddingsSettings


def embeddings(settings: EmbeddingsSettings) -> EmbeddingEngine:
    return EmbeddingEngine(settings, embedding_model)

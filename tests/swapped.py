"""Services of another make, one for each of ours, as a settings file names them: "swapped:SERVICE"."""

from __future__ import annotations

from ragworks import engines
from ragworks.api.service import OrchestrationApi
from ragworks.services.document_processor import DocumentProcessor
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.services.generation_service import GenerationService
from ragworks.services.retrieval_service import RetrievalService
from ragworks.services.vector_store import VectorStore
from ragworks.settings import EmbeddingsSettings


class vector_store(VectorStore):
    version = "swapped"


class document_processor(DocumentProcessor):
    version = "swapped"


class retrieval_service(RetrievalService):
    version = "swapped"


class generation_service(GenerationService):
    version = "swapped"


class orchestration_api(OrchestrationApi):
    version = "swapped"


def embeddings_service(settings: EmbeddingsSettings) -> EmbeddingEngine:
    return engines.embeddings(settings)


embeddings_service.version = "swapped"  # type: ignore[attr-defined]

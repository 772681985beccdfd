"""Which model embeddings_service runs: settings in, a model out, in whichever process it will work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from urllib.parse import urlsplit

from ragworks.clock import SystemClock
from ragworks.errors import InvalidSettings, ModelMissing
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.onnx_folder import FolderEmbedder
from ragworks.models.onnx_weights import OnnxEmbedder
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.protocols import Model, RemoteModel
from ragworks.settings import EmbeddingsSettings
from ragworks.types import TextKind

BUNDLED = "bge-small-en-v1.5"
ENGINES: Mapping[str, Callable[[int], Model]] = {"onnxruntime": OnnxEmbedder, "openvino": lambda n: _openvino(n)}
MODELS: Mapping[str, Callable[[EmbeddingsSettings], Model]] = {
    BUNDLED: lambda settings: ENGINES[settings.engine](settings.threads),
    "hashing": lambda settings: HashingEmbedder(),
}


def embedding_model(settings: EmbeddingsSettings) -> Model | RemoteModel:
    """The model, unloaded or loaded as it likes. Raises ModelMissing."""
    prefixes: dict[TextKind, str] = {"question": settings.query_prefix, "passage": settings.passage_prefix}
    if settings.endpoint.model:
        return OpenAIEmbedder(settings.endpoint, prefixes, SystemClock(), Random())
    if settings.model_folder:
        return FolderEmbedder(settings.model_folder, prefixes, settings.threads)
    return MODELS[settings.model_name](settings)


def has_weights(settings: EmbeddingsSettings) -> bool:
    """Whether the model computes here, with all the cores it gets: no endpoint, and not the one without weights."""
    return not settings.endpoint.model and (bool(settings.model_folder) or settings.model_name != "hashing")


def check(settings: EmbeddingsSettings) -> None:
    """Refuse what contradicts itself, before anything is opened. Raises InvalidSettings."""
    if settings.model_folder and settings.endpoint.model:
        raise InvalidSettings(
            "embeddings_service.model_folder and embeddings_service.endpoint.model name two models; keep one of them"
        )
    if (settings.query_prefix or settings.passage_prefix) and not (settings.model_folder or settings.endpoint.model):
        raise InvalidSettings(
            "embeddings_service.query_prefix and passage_prefix are for a model_folder or an endpoint; "
            f"{settings.model_name} brings its own"
        )
    if settings.endpoint.model:
        _check_urls(settings.endpoint.urls)


def _check_urls(urls: Sequence[str]) -> None:
    if not urls:
        raise InvalidSettings("embeddings_service.endpoint.urls must name at least one base URL, found none")
    for url in urls:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            # Not the URL itself: it may hold a password.
            raise InvalidSettings(
                "embeddings_service.endpoint.urls must be like http://127.0.0.1:8080/v1, without a name, a password or "
                f"a query (a key goes into api_key); found scheme {parts.scheme!r}, host {parts.hostname!r}"
            )


def _openvino(threads: int) -> Model:
    try:
        from ragworks.models.openvino_weights import OpenVinoEmbedder
    except ModuleNotFoundError as error:
        message = "embeddings_service.engine openvino needs a package; run `pip install 'ragworks[openvino]'`"
        raise ModelMissing(message) from error
    return OpenVinoEmbedder(threads)

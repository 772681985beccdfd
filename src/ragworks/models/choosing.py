"""Which model embeddings_service runs: settings in, a model out, in whichever process it will work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from ragworks.clock import SystemClock
from ragworks.control_protocols import Endpoints, endpoint_id
from ragworks.errors import InvalidSettings, ModelMissing
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.onnx_folder import FolderEmbedder
from ragworks.models.onnx_weights import OnnxEmbedder
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.protocols import Model, RemoteModel
from ragworks.settings import EmbeddingsSettings, GenerationSettings
from ragworks.types import TextKind

BUNDLED = "bge-small-en-v1.5"
ENGINES: Mapping[str, Callable[[int], Model]] = {"onnxruntime": OnnxEmbedder, "openvino": lambda n: _openvino(n)}
MODELS: Mapping[str, Callable[[EmbeddingsSettings], Model]] = {
    BUNDLED: lambda settings: ENGINES[settings.engine](settings.threads),
    "hashing": lambda settings: HashingEmbedder(),
}


def embedding_model(settings: EmbeddingsSettings) -> Model:
    """A model that runs here, unloaded or loaded as it likes. Raises ModelMissing."""
    if settings.model_folder:
        return FolderEmbedder(settings.model_folder, _prefixes(settings), settings.threads)
    return MODELS[settings.model_name](settings)


def remote_model(
    settings: EmbeddingsSettings, endpoints: Endpoints, on_tokens: Callable[[int], None] = lambda tokens: None
) -> RemoteModel:
    """The model of ``settings.endpoint``, served by others."""
    return OpenAIEmbedder(settings.endpoint, _prefixes(settings), endpoints, SystemClock(), on_tokens)


def _prefixes(settings: EmbeddingsSettings) -> dict[TextKind, str]:
    return {"question": settings.query_prefix, "passage": settings.passage_prefix}


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
        check_urls("embeddings_service.endpoint", settings.endpoint.urls)
        if settings.replicas.runtime == "process" or settings.replicas.instances != 1:
            raise InvalidSettings(
                "embeddings_service.replicas: the replicas of a model behind an endpoint are its endpoint.urls; leave "
                f"runtime and instances as they are, found {settings.replicas.runtime!r} and "
                f"{settings.replicas.instances}"
            )


def check_generation(settings: GenerationSettings) -> None:
    """The same for who writes answers. Raises InvalidSettings."""
    named = bool(settings.endpoint.model)
    if named != (settings.generator == "openai"):
        raise InvalidSettings(
            "generation_service.generator openai and generation_service.endpoint.model belong together; found "
            f"generator {settings.generator!r} and model {settings.endpoint.model!r}"
        )
    if named:
        check_urls("generation_service.endpoint", settings.endpoint.urls)


def check_urls(section: str, urls: Sequence[str]) -> None:
    """Base URLs that can be asked, that hold no secret and differ. Raises InvalidSettings."""
    if not urls:
        raise InvalidSettings(f"{section}.urls must name at least one base URL, found none")
    for url in urls:
        try:
            parts = urlsplit(url)
            known = bool(parts.hostname) and (parts.port is None or parts.port > 0)  # or it raises
        except ValueError:
            parts, known = urlsplit(""), False
        if parts.scheme not in ("http", "https") or not known or parts.username or parts.query:
            # Not the URL itself: it may hold a password.
            raise InvalidSettings(
                f"{section}.urls must be like http://127.0.0.1:8080/v1, without a name, a password or a query (a key "
                f"goes into api_key); found scheme {parts.scheme!r}, host {parts.hostname!r}"
            )
    names = [endpoint_id(url) for url in urls]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidSettings(f"{section}.urls must differ, found {', '.join(sorted(twice))} more than once")


def _openvino(threads: int) -> Model:
    try:
        from ragworks.models.openvino_weights import OpenVinoEmbedder
    except ModuleNotFoundError as error:
        message = "embeddings_service.engine openvino needs a package; run `pip install 'ragworks[openvino]'`"
        raise ModelMissing(message) from error
    return OpenVinoEmbedder(threads)

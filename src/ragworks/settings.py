"""One frozen tree of settings: defaults visible here, read from ``ragworks.toml`` and ``RAGWORKS_SECTION__KEY``."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from ragworks.errors import InvalidSettings

SERVICES = (
    "vector_store",
    "embeddings_service",
    "document_processor",
    "retrieval_service",
    "generation_service",
    "orchestration_api",
)


OPENAI_URL = "https://api.openai.com/v1"


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    of: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field with its documentation and its allowed range, both of which ``config show`` and errors print."""
    return field(default=default, repr=not secret, metadata={"doc": doc, "low": low, "high": high, "of": of})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8000, "port to bind; 0 takes a free one", low=0, high=65535)
    data: str = setting("./.ragworks", "data folder")
    services: tuple[str, ...] = setting(SERVICES, "services to start", of=SERVICES)


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    workers: int = setting(
        0, "worker processes that read documents; 0 means cores less one, at least one", low=0, high=256
    )
    concurrent_documents: int = setting(
        16, "documents that are under way at once, so that their passages share batches", low=1, high=1000
    )
    max_queue_size: int = setting(1000, "documents that may wait or run", low=1)
    max_queue_bytes: int = setting(4 * 1024**3, "bytes of documents that may wait or run", low=1)
    max_document_bytes: int = setting(100 * 1024**2, "largest document accepted", low=1)
    max_attempts: int = setting(3, "attempts at a document before it is given up", low=1)
    lease_s: float = setting(
        300.0, "seconds without a sign of progress after which an attempt is ended; at least read_timeout_s + 30", low=1
    )
    keep_jobs_s: float = setting(
        7 * 86_400.0, "seconds that a finished job is kept, and the bytes of its failed documents", low=0
    )
    read_timeout_s: float = setting(60.0, "seconds that reading one document may take", low=0.1)
    read_timeout_s_per_mb: float = setting(2.0, "seconds more for each megabyte of the document", low=0)
    read_memory_bytes: int = setting(
        2 * 1024**3, "resident memory that a worker may use for one document", low=64 * 1024**2
    )
    chunk_tokens: int = setting(384, "tokens of a chunk, heading prefix included", low=32, high=8192)
    webhook_secret: str = setting(
        "",
        "signs webhooks: whsec_ and 24 to 64 random bytes in base64; empty refuses submissions that ask for one",
        secret=True,
    )
    webhook_timeout_s: float = setting(15.0, "seconds that the receiver of a webhook has to answer", low=0.1)

    @property
    def silence_s(self) -> float:
        """How long an attempt may be silent: a document that is read within its limit is never taken for dead."""
        return max(self.lease_s, self.read_timeout_s + 30.0)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    max_size: int = setting(10_000, "vectors held in memory", low=0)
    ttl_seconds: float = setting(86_400.0, "seconds that a vector stays in memory", low=0)
    max_bytes: int = setting(64 * 1024**2, "bytes that they may take", low=0)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    model: str = setting("", "embedding model of an OpenAI-compatible endpoint, used instead of model_name")
    urls: tuple[str, ...] = setting(
        (OPENAI_URL,), "base URLs that serve this model, balanced and failed over; OPENAI_BASE_URL if not set"
    )
    api_key: str = setting("", "key sent as a bearer token; OPENAI_API_KEY if not set", secret=True)
    dimension: int = setting(
        0, "numbers of a vector; 0 learns it from the endpoint, which then must be up at start", low=0, high=65536
    )
    concurrency: int = setting(4, "requests in flight for passages, and as many for questions", low=1, high=1000)
    timeout_s: float = setting(30.0, "seconds that one request may take", low=0.05)
    patience_s: float = setting(
        120.0, "seconds that a passage waits through failures before it fails (a question: 5)", low=0
    )
    max_request_bytes: int = setting(512 * 1024, "bytes of text in one request at most", low=1)
    max_text_bytes: int = setting(
        24 * 1024, "bytes of one text that are sent; what is longer is cut and said so", low=64
    )


@dataclass(frozen=True, slots=True)
class EmbeddingsSettings:
    model_name: str = setting(
        "bge-small-en-v1.5",
        "embedding model: bge-small-en-v1.5 (bundled), or hashing (no weights, tests)",
        of=("bge-small-en-v1.5", "hashing"),
    )
    model_folder: str = setting("", "folder of an ONNX embedding model, used instead of model_name")
    engine: str = setting(
        "onnxruntime",
        "what runs the bundled model: onnxruntime, or openvino (extra; nearer to float arithmetic, other vectors)",
        of=("onnxruntime", "openvino"),
    )
    query_prefix: str = setting(
        "", "what the card of a folder's or endpoint's model asks before a question, such as 'query: '"
    )
    passage_prefix: str = setting("", "what it asks before a passage, such as 'passage: '")
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    batch_size: int = setting(100, "texts in one batch, or one request to an endpoint, at most", low=1)
    batch_tokens: int = setting(512, "tokens in one batch at most, padding included", low=64)
    threads: int = setting(0, "threads of the model; 0 means one per core", low=0, high=256)
    cache_enabled: bool = setting(True, "keep vectors in memory by content")
    cache_config: CacheSettings = field(default_factory=CacheSettings)

    @property
    def model(self) -> str:
        """The name by which clients know the model in use."""
        if self.endpoint.model:
            return self.endpoint.model
        return Path(self.model_folder).resolve().name if self.model_folder else self.model_name


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    dense_weight: float = setting(0.7, "share of the dense score in hybrid search", low=0, high=1)
    candidates: int = setting(100, "candidates that each leg brings", low=1, high=1000)
    history_weight: float = setting(0.5, "weight of the scores of all user turns together", low=0, high=1)
    rerank_passages: int = setting(20, "hits that a rerank may reorder", low=2, high=200)
    rerank_weight: float = setting(0.3, "share of the reranker's score", low=0, high=1)
    rerank_budget_s: float = setting(5.0, "seconds after which a rerank is left out", low=0.1)


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    generator: str = setting("extractive", "who writes answers: extractive (quotes sentences)", of=("extractive",))
    passages: int = setting(5, "passages that an answer may use", low=1, high=50)
    support_threshold: float = setting(
        1.0, "least support of the best sentence, in the scorer's units; below it the answer abstains"
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = setting("info", "least severe event logged", of=("debug", "info", "warning", "error"))
    format: str = setting("auto", "json, console, or auto: console on a terminal", of=("auto", "json", "console"))


@dataclass(frozen=True, slots=True)
class Settings:
    server: ServerSettings = field(default_factory=ServerSettings)
    document_processor: ProcessorSettings = field(default_factory=ProcessorSettings)
    embeddings_service: EmbeddingsSettings = field(default_factory=EmbeddingsSettings)
    retrieval_service: RetrievalSettings = field(default_factory=RetrievalSettings)
    generation_service: GenerationSettings = field(default_factory=GenerationSettings)
    log: LogSettings = field(default_factory=LogSettings)


def load(path: str | None = None, environ: Mapping[str, str] | None = None, **overrides: Mapping[str, Any]) -> Settings:
    """Settings from ``path`` (or ``./ragworks.toml`` if it is there), then the environment, then ``overrides``.

    OPENAI_API_KEY and OPENAI_BASE_URL count as defaults. Raises InvalidSettings that names the key, what was found and
    what is allowed.
    """
    environ = os.environ if environ is None else environ
    values = _from_openai(environ)
    _merge(values, _read_toml(path))
    _merge(values, _from_environment(environ))
    _merge(values, overrides)
    settings: Settings = _build(Settings, values, "")
    return settings


def describe(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(key, value, documentation) of every setting, in order."""
    rows: list[tuple[str, Any, str]] = []
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        key = f"{prefix}{item.name}"
        rows += describe(value, f"{key}.") if dataclasses.is_dataclass(value) else [(key, value, item.metadata["doc"])]
    return rows


def _read_toml(path: str | None) -> dict[str, Any]:
    file = Path(path or "ragworks.toml")
    if path is None and not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InvalidSettings(f"there is no configuration file {file}; give --config an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is not valid TOML: {error}") from error


def _from_openai(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {"api_key": environ.get("OPENAI_API_KEY"), "urls": environ.get("OPENAI_BASE_URL")}
    given = {key: value for key, value in found.items() if value}
    return {"embeddings_service": {"endpoint": given}} if given else {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if name.startswith("RAGWORKS_"):
            if "__" not in name:
                raise InvalidSettings(
                    f"unknown environment variable {name}; settings are RAGWORKS_SECTION__KEY, two underscores between "
                    "section and key, as in RAGWORKS_SERVER__PORT"
                )
            *sections, key = name.removeprefix("RAGWORKS_").lower().split("__")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    raise InvalidSettings(f"{name}: {section} is a setting by itself, and holds no {key}")
            place[key] = text
    return values


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and key in values:
            if isinstance(values[key], dict):  # else it is refused for what it is when the tree is built
                _merge(values[key], value)
        elif value is not None:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _build(kind: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise InvalidSettings(f"[{prefix.rstrip('.')}] must be a table of settings, found {values!r}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]!s}?" if near else f"known here: {', '.join(known)}"
            raise InvalidSettings(f"unknown setting {prefix}{key}; {hint}")
    made = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            made[key] = _build(hints[key], value, f"{prefix}{key}.")
        else:
            made[key] = _checked(f"{prefix}{key}", _converted(f"{prefix}{key}", value, hints[key]), known[key].metadata)
    return kind(**made)


def _converted(key: str, value: Any, kind: Any) -> Any:
    try:
        if kind is bool:
            return {True: True, False: False, "true": True, "false": False, "1": True, "0": False}[
                value.lower() if isinstance(value, str) else value
            ]
        if kind in (int, float) and not isinstance(value, bool):
            if kind is int and isinstance(value, float):
                raise ValueError
            return kind(value)
        if kind is str and isinstance(value, str):
            return value
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    except (KeyError, TypeError, ValueError):
        pass
    raise InvalidSettings(f"{key} must be {_called(kind)}, found {value!r}")


def _called(kind: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(kind, "a list of names")


def _checked(key: str, value: Any, rule: Mapping[str, Any]) -> Any:
    low, high, of = rule["low"], rule["high"], rule["of"]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidSettings(f"{key} must be a number, found {value!r}")
    if of:
        for one in value if isinstance(value, tuple) else (value,):
            if one not in of:
                near = difflib.get_close_matches(str(one), of, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InvalidSettings(f"{key} must be one of {', '.join(of)}, found {one!r}{hint}")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise InvalidSettings(f"{key} must be {bounds}, found {value!r}")
    return value

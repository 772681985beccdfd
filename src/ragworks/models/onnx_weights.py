"""The bundled embedder and cross-encoder, run on the CPU, by ONNX Runtime unless told otherwise."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ragworks.errors import ModelMissing
from ragworks.models.carried import BGE_SMALL_EN, RERANKER_EN, CarriedModel, locate
from ragworks.models.encoding import encode, padded, untruncated
from ragworks.types import TextKind, Vectors

QUESTION_PREFIX = "Represent this sentence for searching relevant passages: "
POOLING_VERSION = "cls-l2-qprefix-512.1"
"""Part of the fingerprint: change it whenever pooling, prefix or truncation changes a vector."""

Feed = Mapping[str, NDArray[np.int64]]
Engine = Callable[[Path, int], Callable[[Feed], NDArray[np.float32]]]
"""Opens weights for so many threads: a function from padded ids, mask and types, each (rows, width), to the first
token's output of each row."""


def onnx_engine(weights: Path, threads: int) -> Callable[[Feed], NDArray[np.float32]]:
    """The Engine that needs nothing more installed, and the reference for every other."""
    session = onnxruntime.InferenceSession(str(weights), session_options(threads), providers=["CPUExecutionProvider"])

    def run(feed: Feed) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, feed)[0][:, 0]
        return output

    return run


class OnnxEmbedder:
    """bge-small-en-v1.5 (int8): CLS pooling, unit length, 512 tokens, the card's prefix before questions only.

    Nothing is read before the first use. int8 activations are quantised over the batch, so the same text may get a
    slightly different vector beside other texts (cosine .996 for sentences, .985 for a single letter).
    """

    name = BGE_SMALL_EN.name
    fingerprint = f"{BGE_SMALL_EN.name}:{BGE_SMALL_EN.sha256[:12]}:{POOLING_VERSION}"
    dimension = 384
    max_tokens = 512

    def __init__(self, threads: int = 0, batch_tokens: int = 512, engine: Engine = onnx_engine) -> None:
        self._network = _Network(BGE_SMALL_EN, self.max_tokens, threads, engine)
        self._batch_tokens = batch_tokens

    def load(self) -> None:
        """Read the weights now. Raises ModelMissing."""
        self._network.load()

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        return [untruncated(one) for one in self._encode(texts, kind)]

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        encoded = self._encode(texts, kind)
        out = np.zeros((len(texts), self.dimension), np.float32)
        for rows in _packed(encoded, self._batch_tokens):
            first_tokens = self._network.run([encoded[row] for row in rows])
            out[rows] = first_tokens / np.linalg.norm(first_tokens, axis=1, keepdims=True)
        return out

    def _encode(self, texts: Sequence[str], kind: TextKind) -> list[Encoding]:
        prefix = QUESTION_PREFIX if kind == "question" else ""
        return self._network.encode_long([prefix + text for text in texts])


class OnnxScorer:
    """ms-marco-MiniLM-L-12-v2 (int8): a logit per (question, passage), about -11 for unrelated to +11 for an answer."""

    name = RERANKER_EN.name

    def __init__(self, threads: int = 0, max_tokens: int = 256, batch_tokens: int = 1024) -> None:
        self._network = _Network(RERANKER_EN, max_tokens, threads, onnx_engine)
        self._batch_tokens = batch_tokens

    def load(self) -> None:
        """Read the weights now. Raises ModelMissing."""
        self._network.load()

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        encoded = self._network.encode([(question, passage) for passage in passages])
        out = np.zeros(len(passages), np.float32)
        for rows in _packed(encoded, self._batch_tokens):
            out[rows] = self._network.run([encoded[row] for row in rows])
        return out


class _Network:
    """Tokenizer and weights of one carried model, read on first use by whichever thread comes first."""

    def __init__(self, model: CarriedModel, max_tokens: int, threads: int, engine: Engine) -> None:
        self._model, self._max_tokens, self._engine = model, max_tokens, engine
        self._threads = threads or available_cores()
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._parts: tuple[Tokenizer, Callable[[Feed], NDArray[np.float32]]] | None = None

    def load(self) -> tuple[Tokenizer, Callable[[Feed], NDArray[np.float32]]]:
        with self._lock:
            if self._parts is None:
                files = locate(self._model)
                try:
                    tokenizer = Tokenizer.from_file(str(files.tokenizer))
                    network = self._engine(files.weights, self._threads)
                # The libraries raise classes of their own without a common base; a damaged file is one case for us.
                except Exception as error:
                    message = f"{files.weights.parent} cannot be read as {self._model.name}: {error}"
                    raise ModelMissing(message) from error
                tokenizer.no_padding()
                tokenizer.enable_truncation(self._max_tokens)
                self._parts = tokenizer, network
            return self._parts

    def encode(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> list[Encoding]:
        return self.load()[0].encode_batch_fast(list(inputs)) if inputs else []

    def encode_long(self, texts: Sequence[str]) -> list[Encoding]:
        return encode(self.load()[0], texts, self._max_tokens)

    def run(self, rows: Sequence[Encoding]) -> NDArray[np.float32]:
        """The first token's output for rows padded to the longest."""
        feed, network = padded(rows), self.load()[1]
        with self._turn:  # one run uses all its threads already; several at once only cost memory and switching
            return network(feed)


def available_cores() -> int:
    """Cores that this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between calls steal the cores on which documents are read.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena stays on: without it every run allocates anew, 5.9 against 8.9 CPU-s for 37k tokens, and at 1,024
    # tokens a run it holds no more (240 MB resident in all; 490 MB at 4,096, and slower).
    options.enable_cpu_mem_arena = True
    options.log_severity_level = 3
    return options


def _packed(encoded: Sequence[Encoding], budget: int) -> Iterator[list[int]]:
    """Rows sorted by length, cut so that rows times the longest stay within the token budget."""
    rows: list[int] = []
    for row in sorted(range(len(encoded)), key=lambda place: len(encoded[place].ids)):
        if rows and len(encoded[row].ids) * (len(rows) + 1) > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows

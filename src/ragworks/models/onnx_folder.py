"""An embedding model from a folder of the user's, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ragworks.errors import ModelMissing
from ragworks.models.encoding import INPUTS, encode, padded, untruncated
from ragworks.models.folder import FolderFiles, Pooling, look
from ragworks.models.onnx_weights import available_cores, session_options
from ragworks.types import TextKind, Vectors

OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
"""Preferred in this order; a ``pooler_output`` beside them was trained for something else."""
PROBE = ("ragworks", "two texts of unequal length")


class FolderEmbedder:
    """What sentence-transformers would make of the folder: its pooling and prompts, unit length.

    ``prefixes`` that are not empty stand in place of the folder's prompts. Everything is read by the constructor, which
    raises ModelMissing and says what was expected and what was found.
    """

    def __init__(self, folder: str, prefixes: Mapping[TextKind, str] | None = None, threads: int = 0) -> None:
        files = look(folder)
        own: dict[TextKind, str] = {"question": files.question_prompt, "passage": files.passage_prompt}
        self._prefixes = own | {kind: prefix for kind, prefix in (prefixes or {}).items() if prefix}
        self.name, self.max_tokens = files.name, files.max_tokens
        # The folder's name is not part of it: a folder that was moved or renamed holds the same model.
        said = "\0".join((files.digest, self._prefixes["question"], self._prefixes["passage"]))
        self.fingerprint = f"onnx-folder:{hashlib.sha256(said.encode()).hexdigest()[:12]}"
        self._pooling = files.pooling
        self._tokenizer, self._session = _opened(files, threads)
        self._types, self._pad_id = _input_types(self._session, files), _pad_id(self._tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._output = self._choose_output(files)
        self.dimension = self._vectors(self._encode(PROBE)).shape[1]

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        return [untruncated(one) for one in self._encode([self._prefixes[kind] + text for text in texts])]

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        rows = self._vectors(self._encode([self._prefixes[kind] + text for text in texts]))
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return encode(self._tokenizer, texts, self.max_tokens)

    def _vectors(self, rows: Sequence[Encoding]) -> NDArray[np.float32]:
        feed = padded(rows, self._pad_id)
        output = np.asarray(self._run(self._output, feed), np.float32)
        return output if output.ndim == 2 else pooled(output, feed["attention_mask"], self._pooling)

    def _run(self, output: str, feed: Mapping[str, NDArray[np.int64]]) -> Any:
        return self._session.run([output], {name: feed[name].astype(kind) for name, kind in self._types.items()})[0]

    def _shape(self, output: str) -> tuple[int, ...]:
        shape: tuple[int, ...] = np.shape(self._run(output, padded(self._encode(PROBE), self._pad_id)))
        return shape

    def _choose_output(self, files: FolderFiles) -> str:
        """The output to use: told by its name, else by its shape, which only a run shows for certain."""
        names: list[str] = [one.name for one in self._session.get_outputs()]
        try:
            shapes = {name: self._shape(name) for name in names}
        # ONNX Runtime raises classes of its own without a common base.
        except Exception as error:
            raise ModelMissing(f"{files.weights} cannot be run on a batch of two texts: {error}") from error
        usable = [name for name, shape in shapes.items() if shape[:1] == (len(PROBE),) and len(shape) in (2, 3)]
        if not usable:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ModelMissing(
                f"{files.weights} must answer a vector per text (n, dimension) or per token (n, tokens, dimension); "
                f"found {found}"
            )
        chosen = min(usable, key=lambda name: (_place(name), -len(shapes[name])))
        if len(shapes[chosen]) == 3 and not files.whole:
            raise ModelMissing(
                f"modules.json beside {files.weights} names steps after pooling that are not part of the graph; export "
                "the whole model, so that it has an output sentence_embedding"
            )
        return chosen


def pooled(tokens: NDArray[np.float32], mask: NDArray[np.integer[Any]], pooling: Pooling) -> NDArray[np.float32]:
    """One vector per row of ``tokens`` (n, tokens, dimension), from the tokens that ``mask`` (n, tokens) counts."""
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "last":
        ends = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        last: NDArray[np.float32] = tokens[np.arange(len(tokens)), ends]
        return last
    counted = mask[:, :, None].astype(np.float32)
    if pooling == "max":
        highest: NDArray[np.float32] = np.where(counted > 0, tokens, -np.inf).max(axis=1)
        return highest
    mean: NDArray[np.float32] = (tokens * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1.0)
    return mean


def _opened(files: FolderFiles, threads: int) -> tuple[Tokenizer, Any]:
    options = session_options(threads or available_cores())
    try:
        tokenizer = Tokenizer.from_file(str(files.tokenizer))
        session = onnxruntime.InferenceSession(str(files.weights), options, providers=["CPUExecutionProvider"])
    # Both libraries raise classes of their own without a common base; a damaged file is one case for us.
    except Exception as error:
        raise ModelMissing(
            f"{files.weights.parent} cannot be read as an ONNX model with its tokenizer: {error}"
        ) from error
    return tokenizer, session


def _input_types(session: Any, files: FolderFiles) -> dict[str, str]:
    """The inputs that the graph takes, which may be fewer than there are, with their integer types."""
    wanted = {str(one.name): "int32" if one.type == "tensor(int32)" else "int64" for one in session.get_inputs()}
    if "input_ids" not in wanted or not wanted.keys() <= set(INPUTS):
        takes = ", ".join(wanted)
        raise ModelMissing(f"{files.weights} must take input_ids, and of {INPUTS[1:]} what it likes; it takes {takes}")
    return wanted


def _pad_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    return next((id for word in ("[PAD]", "<pad>") if (id := tokenizer.token_to_id(word)) is not None), 0)


def _place(name: str) -> int:
    return OUTPUTS.index(name) if name in OUTPUTS else len(OUTPUTS)

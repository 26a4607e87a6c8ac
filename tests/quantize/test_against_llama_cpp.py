"""Whole files against those that llama.cpp's quantiser writes: types and bytes, and errors that are no greater."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torchless
from torchless import quants
from torchless.bench.recipes import find_recipe as synthetic_recipe
from torchless.bench.shapes import find_shape, tensor_shapes
from torchless.bench.synthetic import synthetic_metadata
from torchless.quantization.recipes import RECIPES, find_recipe
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_writer import write_gguf

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

EXACT = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
LAYERS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heavy-tailed weights, four query heads for a key/value head, layers enough for every rule."""
    path = tmp_path_factory.mktemp("llama_cpp") / "model.gguf"
    shape = replace(find_shape("test"), num_layers=LAYERS)
    random = np.random.default_rng(3)
    tensors = []
    for name, dims in tensor_shapes(shape).items():
        values = np.ones(dims) if len(dims) == 1 else random.standard_t(4, dims) * dims[-1] ** -0.5
        tensors.append((name, dims, "F32", iter([values.astype("<f4").reshape(-1).view(np.uint8)])))
    write_gguf(path, synthetic_metadata(shape, synthetic_recipe("F32"), "heavy tails"), iter(tensors))
    return path


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "MXFP4"])
def test_types_and_simple_bytes_are_those_of_llama_cpp_and_errors_no_greater(
    model: Path, tmp_path: Path, recipe: str
) -> None:
    torchless.quantize(model, tmp_path / "ours.gguf", recipe, threads=2)
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype = 2, find_recipe(recipe).file_type
    names = [str(path).encode() for path in (model, tmp_path / "theirs.gguf")]
    assert llama_cpp.llama_model_quantize(*names, ctypes.byref(params)) == 0
    with (
        GgufSource(model) as exact,
        GgufSource(tmp_path / "ours.gguf") as ours,
        GgufSource(tmp_path / "theirs.gguf") as theirs,
    ):
        types = {name: info.type for name, info in ours.tensors.items()}
        assert types == {name: info.type for name, info in theirs.tensors.items()}
        for name, kind in types.items():
            if kind in EXACT:
                np.testing.assert_array_equal(ours.raw(name), theirs.raw(name), err_msg=name)
            else:
                x = exact.raw(name).view("<f4").astype(np.float64)
                found, expected = (weighted_error(kind, source.raw(name), x) for source in (ours, theirs))
                assert found <= expected, f"{name} in {kind}: {found / expected:.4f} of llama.cpp's error"


def weighted_error(kind: str, raw: Any, x: np.ndarray) -> float:
    """The weights are those of llama.cpp's quantisers where there is no importance matrix."""
    weights = np.square(x)
    if kind in ("Q4_K", "Q5_K"):
        blocks = x.reshape(-1, 32)
        weights = (np.abs(blocks) + np.sqrt(np.square(blocks).mean(axis=1, keepdims=True))).reshape(-1)
    elif kind == "Q2_K":
        weights = np.abs(x)
    return float((weights * np.square(quants.by_name(kind).decode(raw) - x)).sum())

"""Checkpoints whose weights are 8-bit floats or whole numbers: values, scales, and scales that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from torchless import quants
from torchless.errors import FormatError, UnsupportedError
from torchless.weights.safetensors import SafetensorsSource

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}
NAME, CANONICAL = "model.layers.0.mlp.up_proj", "blk.0.ffn_up.weight"
RANDOM = np.random.default_rng(5)


def opened(folder: Path, tensors: dict[str, Any], method: dict[str, Any] | None = None) -> SafetensorsSource:
    config = CONFIG if method is None else {**CONFIG, "quantization_config": method}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return SafetensorsSource(folder)


def values(source: SafetensorsSource, name: str = CANONICAL) -> np.ndarray:
    info = source.tensors[name]
    raw = source.raw(name)
    assert raw.size == info.num_bytes and not raw.flags.writeable
    return quants.by_name(info.type).decode(raw).reshape(info.shape)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_floats_of_8_bits_are_exact(tmp_path: Path, dtype: Any) -> None:
    every = np.arange(256, dtype=np.uint8).view(dtype).reshape(4, 64)
    source = opened(tmp_path, {NAME + ".weight": every})
    assert source.tensors[CANONICAL].type == "BF16"
    np.testing.assert_array_equal(values(source), every.astype(np.float32))


@pytest.mark.parametrize("part", ["weight_scale_inv", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (300,), (300, 1), (3, 2)])
def test_scales_are_multiplied(tmp_path: Path, part: str, shape: tuple[int, ...]) -> None:
    weight = RANDOM.standard_normal((300, 200)).astype(ml_dtypes.float8_e4m3fn)
    scale = RANDOM.uniform(0.5, 2, shape).astype(np.float32)
    extra = {"input_scale": np.ones((), np.float32), "k_scale": np.ones((), np.float32)}
    tensors = {
        f"{NAME}.{key}": value for key, value in {"weight": weight, part: np.asarray(scale), **extra}.items()
    }
    source = opened(tmp_path, tensors, {"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert set(source.tensors) == {CANONICAL}
    if shape == (3, 2):
        full = np.repeat(np.repeat(scale, 128, 0), 128, 1)[:300, :200]
    else:
        full = scale.reshape(-1, 1)
    wanted = (weight.astype(np.float32) * full).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(values(source), wanted)


def test_large_tensors_are_decoded_in_slices(tmp_path: Path) -> None:
    weight = RANDOM.integers(0, 256, (1300, 4096), np.uint8).view(ml_dtypes.float8_e5m2)
    scale = RANDOM.uniform(0.5, 2, (11, 32)).astype(np.float32)
    source = opened(
        tmp_path, {NAME + ".weight": weight, NAME + ".weight_scale_inv": scale}, {"quant_method": "fp8"}
    )
    full = np.repeat(np.repeat(scale, 128, 0), 128, 1)[:1300]
    with np.errstate(invalid="ignore"):
        wanted = (weight.astype(np.float32) * full).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(values(source), wanted)


def test_a_copy_is_made_once_for_all_slices_and_forgotten_at_the_end(tmp_path: Path) -> None:
    source = opened(tmp_path, {NAME + ".weight": np.ones((4, 64), ml_dtypes.float8_e4m3fn)})
    first = source.raw(CANONICAL)
    source.drop_pages(CANONICAL, 0, 256)
    assert source.raw(CANONICAL).base is first.base
    source.drop_pages(CANONICAL, 256, 256)
    assert source.raw(CANONICAL).base is not first.base


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_])
def test_other_numbers_become_f32(tmp_path: Path, dtype: Any) -> None:
    weight = RANDOM.integers(0, 2, (6, 32)).astype(dtype)
    found = opened(tmp_path, {NAME + ".weight": weight})
    assert found.tensors[CANONICAL].type == "F32"
    np.testing.assert_array_equal(values(found), weight.astype(np.float32))


def test_whole_numbers_with_scales(tmp_path: Path) -> None:
    weight = RANDOM.integers(-128, 128, (6, 32)).astype(np.int8)
    scale = RANDOM.uniform(0.5, 2, (6, 1)).astype(ml_dtypes.bfloat16)
    method = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    source = opened(tmp_path, {NAME + ".weight": weight, NAME + ".weight_scale": scale}, method)
    wanted = (weight * scale.astype(np.float32)).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(values(source), wanted)


@pytest.mark.parametrize("shape", [(7,), (2, 2), (3, 3), (1, 200)])
def test_scales_that_do_not_fit_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensors = {
        NAME + ".weight": np.ones((300, 200), ml_dtypes.float8_e4m3fn),
        NAME + ".weight_scale": np.ones(shape, np.float32),
    }
    with pytest.raises(FormatError, match=r"weight_scale' has the shape .* fits neither"):
        opened(tmp_path, tensors, {"quant_method": "fp8"})


def test_scales_of_another_kind_are_refused(tmp_path: Path) -> None:
    scale = {NAME + ".weight_scale": np.ones((4, 2), np.float32)}
    with pytest.raises(UnsupportedError, match="type U8 and scales beside it"):
        opened(tmp_path, {NAME + ".weight": np.ones((4, 32), np.uint8), **scale})
    with pytest.raises(FormatError, match="expected F32, F16 or BF16"):
        tensors = {NAME + ".weight": np.ones((4, 32), ml_dtypes.float8_e5m2)}
        opened(tmp_path, {**tensors, NAME + ".weight_scale": np.ones((), np.int32)})
    with pytest.raises(FormatError, match="weight_block_size: found"):
        opened(tmp_path, tensors, {"quant_method": "fp8", "weight_block_size": [0, 128]})

"""GPTQ and AWQ checkpoints, packed here as their libraries document it: values, choice of type, and parts that lie."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from torchless import quants
from torchless.errors import FormatError, UnsupportedError
from torchless.weights.safetensors import SafetensorsSource

INPUTS, OUTPUTS, GROUP = 256, 72, 64
NAME, CANONICAL = "model.layers.0.mlp.up_proj", "blk.0.ffn_up.weight"
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(codes: np.ndarray, order: list[int]) -> np.ndarray:
    """Eight codes of the last axis in an int32; nibble i is code order[i] of them."""
    parts = codes.reshape(*codes.shape[:-1], -1, 8).astype(np.uint32)
    packed = np.zeros(parts.shape[:-1], np.uint32)
    for i, place in enumerate(order):
        packed |= parts[..., place] << np.uint32(4 * i)
    return packed.view(np.int32)


def checkpoint(
    method: str, *, zeros: int | None = None, shuffled: bool = False, version: int = 1, group: int = GROUP
) -> tuple[dict[str, Any], np.ndarray]:
    """Tensors of one layer, and its weight (outputs, inputs)."""
    random = np.random.default_rng(9)
    codes = random.integers(0, 16, (INPUTS, OUTPUTS))
    scales = random.uniform(0.001, 0.1, (INPUTS // group, OUTPUTS)).astype(np.float16)
    offsets = random.integers(1, 16, scales.shape) if zeros is None else np.full(scales.shape, zeros)
    groups = np.arange(INPUTS) // group
    if shuffled:
        random.shuffle(groups)
    weight = scales.astype(np.float32)[groups] * (codes - offsets[groups]).astype(np.float32)
    straight = list(range(8))
    if method == "awq":
        tensors = {"qweight": words(codes, AWQ_ORDER), "qzeros": words(offsets, AWQ_ORDER), "scales": scales}
    else:
        stored = offsets - 1 if version == 1 else offsets
        tensors = {
            "qweight": np.ascontiguousarray(words(np.ascontiguousarray(codes.T), straight).T),
            "qzeros": words(stored, straight),
            "scales": scales,
            "g_idx": groups.astype(np.int32),
        }
    return {f"{NAME}.{key}": value for key, value in tensors.items()}, weight.T


def opened(folder: Path, tensors: dict[str, Any], **settings: Any) -> SafetensorsSource:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    save_file(tensors, folder / "model.safetensors")
    return SafetensorsSource(folder)


def decoded(source: SafetensorsSource) -> np.ndarray:
    info = source.tensors[CANONICAL]
    return quants.by_name(info.type).decode(source.raw(CANONICAL).reshape(info.shape[0], -1))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_symmetric_codes_are_exact_as_q4_0(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, weight = checkpoint(method, zeros=8)
    with caplog.at_level(logging.INFO, "torchless"):
        source = opened(tmp_path, tensors, quant_method=method, bits=4)
    assert set(source.tensors) == {CANONICAL}
    assert source.tensors[CANONICAL].type == "Q4_0" and source.tensors[CANONICAL].shape == (OUTPUTS, INPUTS)
    np.testing.assert_array_equal(decoded(source), weight)
    assert caplog.messages == ["1 tensor is stored as 4-bit codes and read as Q4_0, exactly"]


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_other_zeros_become_q4_1_with_offsets_rounded_once(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, weight = checkpoint(method)
    with caplog.at_level(logging.INFO, "torchless"):
        source = opened(tmp_path, tensors, quant_method=method)
    assert source.tensors[CANONICAL].type == "Q4_1" and caplog.messages[0].endswith(
        "Q4_1, rounded to the nearest"
    )
    assert np.abs(decoded(source) - weight).max() <= 0.1 * 15 * 2**-11
    tensors, weight = checkpoint(method, zeros=4)
    source = opened(tmp_path, tensors, quant_method=method)
    assert source.tensors[CANONICAL].type == "Q4_1"
    np.testing.assert_array_equal(decoded(source), weight)


def test_zeros_are_stored_as_they_are_in_the_second_version(tmp_path: Path) -> None:
    tensors, weight = checkpoint("gptq", zeros=8, version=2)
    source = opened(tmp_path, tensors, quant_method="gptq", checkpoint_format="gptq_v2")
    np.testing.assert_array_equal(decoded(source), weight)


def test_groups_in_activation_order_become_f16(tmp_path: Path) -> None:
    tensors, weight = checkpoint("gptq", shuffled=True)
    source = opened(tmp_path, tensors, quant_method="gptq", desc_act=True)
    assert source.tensors[CANONICAL].type == "F16"
    np.testing.assert_array_equal(decoded(source), weight.astype(np.float16))


@pytest.mark.parametrize(("group", "kind"), [(INPUTS, "Q4_0"), (32, "Q4_0"), (16, "F16")])
def test_any_size_of_groups(tmp_path: Path, group: int, kind: str) -> None:
    tensors, weight = checkpoint("gptq", zeros=8, group=group)
    del tensors[NAME + ".g_idx"]
    source = opened(tmp_path, tensors, quant_method="gptq")
    assert source.tensors[CANONICAL].type == kind
    wanted = weight if kind == "Q4_0" else weight.astype(np.float16)
    np.testing.assert_array_equal(decoded(source), wanted)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("qzeros", None, "there is no qzeros"),
        ("scales", None, "there is no scales"),
        ("qweight", np.zeros((32, OUTPUTS), np.int16), "expected a matrix of I32"),
        ("scales", np.zeros((4, 5), np.float16), r"expected \[groups, 72\]"),
        ("scales", np.zeros((4, OUTPUTS), np.int32), "expected F32, F16 or BF16"),
        ("qzeros", np.zeros((4, 2), np.int32), "expected I32 of 72 zeros"),
        ("g_idx", np.full(INPUTS, 4, np.int32), "outside 0 .. 3"),
        ("g_idx", np.full(INPUTS, -1, np.int32), "outside 0 .. 3"),
        ("g_idx", np.zeros(3, np.int32), r"expected I32 \[256\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, part: str, value: Any, message: str) -> None:
    tensors, _ = checkpoint("gptq")
    tensors[f"{NAME}.{part}"] = value
    with pytest.raises(FormatError, match=message):
        opened(
            tmp_path, {key: item for key, item in tensors.items() if item is not None}, quant_method="gptq"
        )


def test_groups_that_do_not_divide_the_inputs_are_refused(tmp_path: Path) -> None:
    tensors, _ = checkpoint("awq")
    tensors[NAME + ".scales"] = np.ones((3, OUTPUTS), np.float16)
    tensors[NAME + ".qzeros"] = tensors[NAME + ".qzeros"][:3].copy()
    with pytest.raises(FormatError, match="3 groups do not divide 256 inputs"):
        opened(tmp_path, tensors, quant_method="awq")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": 3}, "gptq of 3 bits"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ({"quant_method": "awq", "version": "GEMV"}, "version is 'gemv'"),
        ({"quant_method": "fp8"}, "names no method"),
    ],
)
def test_other_ways_are_refused_by_name(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        opened(tmp_path, checkpoint("gptq")[0], **settings)

"""Conversion of rows to activation formats, norm, gated activations and addition, against float64 NumPy."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from torchless.backends.reference import ops

Floats = npt.NDArray[np.float32]
FORMATS = ["f32", "bf16", "int8x32", "int8x256"]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Rows:
    """Decodes the bytes of activation rows as core/activations.h describes them."""

    def __init__(self, kernels: ModuleType, data: npt.NDArray[np.uint8], format_: str, width: int) -> None:
        self.layout: dict[str, Any] = kernels.row_layout(format_, width)
        self.data, self.format, self.width = data, format_, width
        assert data.shape[1] == self.layout["row_bytes"]
        assert self.layout["row_bytes"] % 64 == 0

    def part(self, offset: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        return np.ascontiguousarray(self.data[:, offset : offset + size]).view(dtype)

    def q(self) -> npt.NDArray[np.int8]:
        return self.part(0, np.int8, self.width)

    def scales(self) -> Floats:
        return self.part(self.layout["scale_offset"], np.float32, self.width // self.layout["block"])

    def values(self) -> npt.NDArray[np.float64]:
        if self.format == "f32":
            return self.part(0, np.float32, self.width).astype(np.float64)
        if self.format == "bf16":
            return self.part(0, BFLOAT16, self.width).astype(np.float64)
        return self.q() * np.repeat(self.scales().astype(np.float64), self.layout["block"], axis=1)

    def check_sums(self) -> None:
        q = self.q().astype(np.int64)
        sums = {n: q.reshape(len(q), -1, n).sum(axis=2) for n in (16, 32)}
        if self.format == "int8x32":
            stored = self.part(self.layout["sum32_offset"], np.int32, self.width // 32)
            np.testing.assert_array_equal(stored, sums[32])
        else:
            stored = self.part(self.layout["sum32_offset"], np.int16, self.width // 32)
            np.testing.assert_array_equal(stored, sums[32])
            stored = self.part(self.layout["sum16_offset"], np.int16, self.width // 16)
            np.testing.assert_array_equal(stored, sums[16])


def check_format(rows: Rows, expected: npt.NDArray[np.float64], relative: float) -> None:
    """The rows are `expected` to a relative error (of the largest element) and the format's own rounding."""
    values = rows.values()
    slack = relative * np.abs(expected).max()
    if rows.format == "f32":
        assert np.abs(values - expected).max() <= slack
    elif rows.format == "bf16":
        assert (np.abs(values - expected) <= slack + np.abs(expected) * 2.0**-8).all()
    else:
        block = rows.layout["block"]
        largest = np.abs(expected).reshape(len(expected), -1, block).max(axis=2)
        np.testing.assert_allclose(rows.scales(), largest / 127, rtol=1e-5, atol=1e-37)
        steps = np.repeat(largest / 127, block, axis=1)
        assert (np.abs(values - expected) <= slack + steps * 0.5001).all()
        rows.check_sums()


def widths_of(format_: str) -> list[int]:
    return {
        "f32": [1, 8, 15, 16, 17, 100, 4096],
        "bf16": [1, 7, 16, 33, 288, 4096],
        "int8x32": [32, 64, 96, 288, 2048],
        "int8x256": [256, 768, 2048],
    }[format_]


@pytest.mark.parametrize("format_", FORMATS)
def test_convert_keeps_values_to_the_precision_of_the_format(
    kernels: ModuleType, level: str, rng: np.random.Generator, format_: str
) -> None:
    for width in widths_of(format_):
        x = (rng.standard_normal((3, width)) * np.exp(rng.standard_normal((3, 1)) * 5)).astype(np.float32)
        rows = Rows(kernels, kernels.convert_rows(level, x, format_), format_, width)
        check_format(rows, x.astype(np.float64), 0.0)
        if format_ == "bf16":
            np.testing.assert_array_equal(rows.part(0, np.uint16, width), x.astype(BFLOAT16).view(np.uint16))


def test_float_rows_are_padded_with_zeros(kernels: ModuleType, level: str) -> None:
    x = np.ones((2, 17), np.float32)
    f32 = kernels.convert_rows(level, x, "f32").view(np.float32)
    assert (f32[:, 17:] == 0).all()
    bf16 = kernels.convert_rows(level, x, "bf16").view(np.uint16)
    assert (bf16[:, 17:32] == 0).all()


@pytest.mark.parametrize("format_", ["int8x32", "int8x256"])
def test_int8_rounds_halves_to_even(kernels: ModuleType, level: str, format_: str) -> None:
    # With 127 as the largest element the scale is exactly 1 and every x is its own quotient.
    x = np.zeros((1, 256), np.float32)
    x[0, ::32] = 127.0
    x[0, 1:9] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 126.5]
    q = Rows(kernels, kernels.convert_rows(level, x, format_), format_, 256).q()
    np.testing.assert_array_equal(q[0, :9], [127, 0, 2, 2, 0, -2, -2, 0, 126])


@pytest.mark.parametrize("format_", ["int8x32", "int8x256"])
def test_int8_of_zeros_and_of_tiny_numbers_is_zero(kernels: ModuleType, level: str, format_: str) -> None:
    for x in (np.zeros((1, 256), np.float32), np.full((1, 256), 1e-40, np.float32)):
        rows = Rows(kernels, kernels.convert_rows(level, x, format_), format_, 256)
        assert (rows.scales() == 0).all()
        assert (rows.q() == 0).all()
        rows.check_sums()


@pytest.mark.parametrize("format_", ["int8x32", "int8x256"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_int8_marks_a_block_that_is_not_finite(
    kernels: ModuleType, level: str, rng: np.random.Generator, format_: str, bad: float
) -> None:
    x = rng.standard_normal((1, 512)).astype(np.float32)
    clean = Rows(kernels, kernels.convert_rows(level, x, format_), format_, 512)
    x[0, 300] = bad
    rows = Rows(kernels, kernels.convert_rows(level, x, format_), format_, 512)
    block = rows.layout["block"]
    hit = np.arange(512 // block) == 300 // block
    assert np.isnan(rows.scales()[0, hit]).all()
    assert (rows.q()[0, np.repeat(hit, block)] == 0).all()
    np.testing.assert_array_equal(rows.scales()[0, ~hit], clean.scales()[0, ~hit])
    rows.check_sums()


@pytest.mark.parametrize("format_", FORMATS)
def test_rms_norm_matches_float64(
    kernels: ModuleType, level: str, rng: np.random.Generator, format_: str
) -> None:
    for width in widths_of(format_):
        x = (rng.standard_normal((3, width)) * np.exp(rng.standard_normal((3, 1)) * 4)).astype(np.float32)
        weight = rng.standard_normal(width).astype(np.float32)
        data = kernels.rms_norm_rows(level, x, weight, 1e-5, format_)
        wide = x.astype(np.float64)
        expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight
        check_format(Rows(kernels, data, format_, width), expected, 1e-6)


@pytest.mark.parametrize("width", [1023, 1024, 1025, 5120, 16384])
def test_rms_norm_sums_wide_rows_accurately(kernels: ModuleType, level: str, width: int) -> None:
    # All elements alike: a single long chain of additions would drift one way. The others: one giant first.
    rows = np.ones((2, width), np.float32) * np.float32(1.1)
    rows[1, 0] = 300.0
    data = kernels.rms_norm_rows(level, rows, np.ones(width, np.float32), 0.0, "f32")
    wide = rows.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True))
    got = data.view(np.float32)[:, :width]
    np.testing.assert_allclose(got, expected, rtol=6e-7)


def test_rms_norm_of_zeros_is_zero(kernels: ModuleType, level: str) -> None:
    data = kernels.rms_norm_rows(level, np.zeros((1, 64), np.float32), np.ones(64, np.float32), 1e-6, "f32")
    assert (data.view(np.float32) == 0).all()


def test_norm_of_a_row_does_not_depend_on_the_others(
    kernels: ModuleType, level: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((7, 1280)).astype(np.float32)
    weight = rng.standard_normal(1280).astype(np.float32)
    for format_ in FORMATS:
        together = kernels.rms_norm_rows(level, x, weight, 1e-5, format_)
        for i in range(7):
            alone = kernels.rms_norm_rows(level, x[i : i + 1], weight, 1e-5, format_)
            np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("has_bias", [True, False])
def test_layer_norm_matches_float64(
    kernels: ModuleType, level: str, rng: np.random.Generator, format_: str, has_bias: bool
) -> None:
    for width in widths_of(format_):
        x = (rng.standard_normal((3, width)) * np.exp(rng.standard_normal((3, 1)) * 4)).astype(np.float32)
        x += np.abs(x).max(axis=1, keepdims=True)  # a mean as large as the values
        weight, bias = (rng.standard_normal(width).astype(np.float32) for _ in range(2))
        data = kernels.layer_norm_rows(level, x, weight, bias if has_bias else None, 1e-5, format_)
        expected = ops.layer_norm(x.astype(np.float64), weight, bias if has_bias else None, 1e-5)  # type: ignore[arg-type]
        check_format(Rows(kernels, data, format_, width), expected, 4e-6)


@pytest.mark.parametrize("width", [3, 17, 1023, 1025, 5120, 16384])
def test_layer_norm_subtracts_the_mean_of_wide_rows_accurately(
    kernels: ModuleType, level: str, rng: np.random.Generator, width: int
) -> None:
    rows = (100 + rng.standard_normal((2, width))).astype(np.float32)
    data = kernels.layer_norm_rows(level, rows, np.ones(width, np.float32), None, 1e-5, "f32")
    expected = ops.layer_norm(rows.astype(np.float64), np.ones(width), None, 1e-5)
    # The mean itself is rounded to a float near 100: that much of a deviation of 1 is lost.
    np.testing.assert_allclose(data.view(np.float32)[:, :width], expected, atol=2e-5)


def test_layer_norm_of_a_row_does_not_depend_on_the_others(
    kernels: ModuleType, level: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((5, 1280)).astype(np.float32)
    weight, bias = (rng.standard_normal(1280).astype(np.float32) for _ in range(2))
    for format_ in FORMATS:
        together = kernels.layer_norm_rows(level, x, weight, bias, 1e-5, format_)
        for i in range(5):
            alone = kernels.layer_norm_rows(level, x[i : i + 1], weight, bias, 1e-5, format_)
            np.testing.assert_array_equal(alone[0], together[i])


def activation(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if name == "silu":
        return x / (1 + np.exp(-np.maximum(x, -700)))
    if name == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    # erfc rather than 1 + erf: the negative tail is a difference of nearly equal numbers.
    return 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2))


@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "gelu"])
def test_gated_activation_matches_float64(kernels: ModuleType, level: str, name: str) -> None:
    gate = np.concatenate([np.linspace(-30, 30, 6001), [-1e4, -1e30, -3e38, 1e4, 1e30, 0.0]]).astype(
        np.float32
    )
    up = np.full_like(gate, 0.5)
    got = kernels.glu_rows(level, name, gate[None], up[None], "f32").view(np.float32)[0, : gate.size]
    expected = activation(name, np.clip(gate.astype(np.float64), -1e30, None)) * 0.5
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=5e-7)


@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "gelu"])
def test_gated_activation_passes_nan_on_and_keeps_limits(kernels: ModuleType, level: str, name: str) -> None:
    gate = np.array([[math.nan, math.inf, -math.inf] + [0.0] * 13], np.float32)
    got = kernels.glu_rows(level, name, gate, np.ones_like(gate), "f32").view(np.float32)[0]
    assert math.isnan(got[0])
    assert got[1] == math.inf
    assert abs(got[2]) < 1e-30


@pytest.mark.parametrize("format_", FORMATS)
def test_gated_activation_writes_every_format(
    kernels: ModuleType, level: str, rng: np.random.Generator, format_: str
) -> None:
    for width in widths_of(format_):
        gate, up = rng.standard_normal((2, 3, width)).astype(np.float32)
        data = kernels.glu_rows(level, "silu", gate, up, format_)
        expected = activation("silu", gate.astype(np.float64)) * up
        check_format(Rows(kernels, data, format_, width), expected, 1e-6)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 1000])
def test_add_is_the_rounded_sum(kernels: ModuleType, level: str, rng: np.random.Generator, n: int) -> None:
    a, b = rng.standard_normal((2, n)).astype(np.float32)
    np.testing.assert_array_equal(kernels.add(level, a, b), a + b)


def test_wrong_sizes_are_refused(kernels: ModuleType) -> None:
    x = np.zeros((1, 48), np.float32)
    with pytest.raises(ValueError, match="multiple of the format's block"):
        kernels.convert_rows("scalar", x, "int8x32")
    with pytest.raises(ValueError, match="not one of"):
        kernels.convert_rows("scalar", x, "int4")
    with pytest.raises(ValueError, match="unknown or not available"):
        kernels.convert_rows("sse9", x, "f32")
    with pytest.raises(ValueError, match="weight has 47"):
        kernels.rms_norm_rows("scalar", x, np.zeros(47, np.float32), 1e-5, "f32")
    with pytest.raises(ValueError, match="weight or bias has 47"):
        kernels.layer_norm_rows("scalar", x, np.zeros(48, np.float32), np.zeros(47, np.float32), 1e-5, "f32")

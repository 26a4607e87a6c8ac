"""What experts need beside products: the weighted sum of rows and the clamped SwiGLU."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from torchless.backends.reference import ops


@pytest.mark.parametrize("width", [1, 16, 37, 64])
@pytest.mark.parametrize("num_rows", [1, 2, 8])
def test_combine_adds_rows_in_their_order(
    kernels: ModuleType, level: str, rng: np.random.Generator, num_rows: int, width: int
) -> None:
    rows = rng.standard_normal((num_rows, width)).astype(np.float32)
    weights = rng.standard_normal(num_rows).astype(np.float32)
    residual = rng.standard_normal(width).astype(np.float32)
    plain = kernels.combine(level, rows, weights)
    # Fused multiply-adds: the product is exact in float64, the sum is rounded once.
    expected = weights[0] * rows[0]
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        expected = (np.float64(weight) * row.astype(np.float64) + expected).astype(np.float32)
    np.testing.assert_allclose(plain, expected, rtol=0, atol=0 if level != "scalar" else 1e-6)
    np.testing.assert_array_equal(kernels.combine(level, rows, weights, residual), residual + plain)


def test_clamped_swiglu_matches_its_definition(kernels: ModuleType, level: str) -> None:
    gate, up = np.meshgrid(np.linspace(-60, 12, 145), np.linspace(-9, 9, 37))
    found = kernels.glu_rows(level, "swiglu_clamped", gate.astype(np.float32), up.astype(np.float32), "f32")
    expected = ops.glu(gate, up, "swiglu_clamped")
    np.testing.assert_allclose(found.view(np.float32)[:, :145], expected, rtol=2e-6, atol=2e-6)


def test_clamped_swiglu_passes_nan_on_and_holds_infinities(kernels: ModuleType, level: str) -> None:
    gate = np.array([[math.nan, math.inf, -math.inf, 1.0] + [0.0] * 12], np.float32)
    up = np.array([[1.0, math.inf, 1.0, math.nan] + [0.0] * 12], np.float32)
    found = kernels.glu_rows(level, "swiglu_clamped", gate, up, "f32").view(np.float32)[0]
    assert math.isnan(found[0]) and math.isnan(found[3])
    assert found[1] == pytest.approx(8 * 7 / (1 + math.exp(-1.702 * 7)))
    assert abs(found[2]) < 1e-30

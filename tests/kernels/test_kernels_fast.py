"""Products in fast mode, of every format that has them on every level, against the same arithmetic in NumPy."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from products import NUM_COLUMNS, NUM_ROWS, Product, activation_values, random_rows

from torchless import quants

BLOCK = 256
NAMES = ["Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]


@pytest.fixture(params=NAMES)
def product(request: pytest.FixtureRequest, kernels: ModuleType, level: str) -> Product:
    if level != "avx512":
        pytest.skip("only avx512 has fast products")
    return Product(kernels, level, request.param, fast=True)


def requantised(weights: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """What int8 with one scale per 256 columns makes of weights (rows, columns): float64."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    # One rounding of the sum, then one to a whole number: the product of two float32 is exact in float64.
    codes = np.rint((blocks.astype(np.float64) * inverse + 128).astype(np.float32)).astype(np.float64) - 128
    return (codes * (largest / np.float32(127)).astype(np.float64)).reshape(weights.shape)


def test_formats_that_gain_have_fast_products(kernels: ModuleType, level: str) -> None:
    types = {quants.by_id(f["gguf_type"]).name for f in kernels.formats(level) if f["has_fast"]}
    assert types == (set(NAMES) if level == "avx512" else set())


@pytest.mark.parametrize("num_tokens", [1, 5, 33])
def test_product_is_that_of_requantised_weights(
    product: Product, rng: np.random.Generator, num_tokens: int
) -> None:
    rows = product.rows(rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32))
    values = activation_values(product.kernels, rows, product.activations, NUM_COLUMNS)
    decoded = product.format.decode(product.raw).astype(np.float32).reshape(NUM_ROWS, NUM_COLUMNS)
    expected = values @ requantised(decoded).T
    assert np.abs(product(rows) - expected).max() < 1e-6 * np.abs(expected).max()
    exact = values @ decoded.astype(np.float64).T
    error = np.sqrt(np.mean((expected - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 1.5e-2  # it is another product, and not a much worse one


def test_bits_do_not_depend_on_the_tokens_computed_together(
    product: Product, rng: np.random.Generator
) -> None:
    rows = product.rows(rng.standard_normal((33, NUM_COLUMNS)).astype(np.float32))
    alone = np.concatenate([product(rows[i : i + 1]) for i in range(33)])
    for size in (2, 3, 7, 8, 9, 17, 33):
        together = np.concatenate([product(rows[i : i + size]) for i in range(0, 33, size)])
        np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K"])
def test_many_tokens_and_tiles_are_done_in_rounds(
    kernels: ModuleType, level: str, rng: np.random.Generator, name: str
) -> None:
    if level != "avx512":
        pytest.skip("only avx512 has fast products")
    product = Product(kernels, level, name, num_columns=256, num_rows=87, fast=True)
    rows = product.rows(rng.standard_normal((523, 256)).astype(np.float32))
    parts = np.concatenate([product(rows[:100]), product(rows[100:])])
    np.testing.assert_array_equal(product(rows).view(np.uint32), parts.view(np.uint32))


def test_bias_and_residual_are_added(product: Product, rng: np.random.Generator) -> None:
    rows = product.rows(rng.standard_normal((9, NUM_COLUMNS)).astype(np.float32))
    bias = rng.standard_normal(NUM_ROWS).astype(np.float32)
    residual = rng.standard_normal((9, NUM_ROWS)).astype(np.float32)
    found = product(rows, bias=bias, residual=residual)
    np.testing.assert_array_equal(found, residual + (product(rows) + bias))


def test_rows_of_zeros_and_of_nan_stay_so(kernels: ModuleType, level: str) -> None:
    if level != "avx512":
        pytest.skip("only avx512 has fast products")
    format_ = quants.by_name("Q6_K")
    raw = random_rows("Q6_K", 3, BLOCK)
    raw[0, -2:] = 0  # d, the last field of a block
    raw[1, -2:] = np.array([np.nan], np.float16).view(np.uint8)
    tiles = kernels.pack(level, format_.id, raw)
    x = kernels.convert_rows(level, np.ones((2, BLOCK), np.float32), "int8x256")
    out = kernels.matmul(level, format_.id, tiles, BLOCK, 3, x, fast=True)
    assert (out[:, 0] == 0).all() and np.isnan(out[:, 1]).all() and np.isfinite(out[:, 2]).all()

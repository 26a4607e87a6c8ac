"""Matrix products of every weight format, on every level, against float64; and the promise at kernel level."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from products import FORMATS, NUM_COLUMNS, NUM_ROWS, Product, activation_values


@pytest.fixture(params=FORMATS)
def product(request: pytest.FixtureRequest, kernels: ModuleType, level: str) -> Product:
    return Product(kernels, level, request.param)


def test_decode_row_equals_the_python_format(product: Product) -> None:
    for row in product.raw[:5]:
        decoded = product.kernels.decode_row(product.level, product.format.id, row)
        np.testing.assert_array_equal(decoded, product.format.decode(row))


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 4, 5, 8, 9, 33])
def test_product_matches_float64(product: Product, rng: np.random.Generator, num_tokens: int) -> None:
    x = rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32)
    rows = product.rows(x)
    values = activation_values(product.kernels, rows, product.activations, NUM_COLUMNS)
    weights = product.format.decode(product.raw).astype(np.float64)
    expected = values @ weights.T
    error = np.abs(product(rows) - expected).max() / np.abs(expected).max()
    assert error < 2e-6


def test_bits_do_not_depend_on_the_tokens_computed_together(
    product: Product, rng: np.random.Generator
) -> None:
    rows = product.rows(rng.standard_normal((33, NUM_COLUMNS)).astype(np.float32))
    alone = np.concatenate([product(rows[i : i + 1]) for i in range(33)])
    for size in (2, 3, 4, 5, 6, 7, 8, 9, 16, 24, 25, 33):
        together = np.concatenate([product(rows[i : i + size]) for i in range(0, 33, size)])
        np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("name", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("num_columns", [64, 77])
def test_subnormal_numbers_do_not_tell_tokens_apart(
    kernels: ModuleType, level: str, rng: np.random.Generator, name: str, num_columns: int
) -> None:
    """Products and sums at the edge of what floats hold: one token and many treat them alike."""
    product = Product(kernels, level, name, num_columns=num_columns)
    scale = np.exp2(rng.integers(-134, -116, (33, 1))).astype(np.float32)
    rows = product.rows(rng.standard_normal((33, num_columns)).astype(np.float32) * scale)
    alone = np.concatenate([product(rows[i : i + 1]) for i in range(33)])
    np.testing.assert_array_equal(product(rows).view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("num_tokens", [1, 9])
def test_bits_do_not_depend_on_how_tiles_are_split(
    product: Product, rng: np.random.Generator, num_tokens: int
) -> None:
    rows = product.rows(rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32))
    whole = product(rows)
    parts = product(rows, tile_begin=0, tile_end=1), product(rows, tile_begin=1, tile_end=3)
    np.testing.assert_array_equal(whole[:, :16], parts[0][:, :16])
    np.testing.assert_array_equal(whole[:, 16:], parts[1][:, 16:])


@pytest.mark.parametrize("num_tokens", [1, 9])
def test_bias_and_residual_are_added_once(
    product: Product, rng: np.random.Generator, num_tokens: int
) -> None:
    rows = product.rows(rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32))
    bias = rng.standard_normal(NUM_ROWS).astype(np.float32)
    residual = rng.standard_normal((num_tokens, NUM_ROWS)).astype(np.float32)
    plain = product(rows)
    np.testing.assert_array_equal(product(rows, bias=bias), plain + bias)
    np.testing.assert_array_equal(product(rows, bias=bias, residual=residual), residual + (plain + bias))


def test_levels_agree(kernels: ModuleType, rng: np.random.Generator) -> None:
    """Integer dot products are exact on every level; only float rounding may differ."""
    levels = kernels.levels()
    x = rng.standard_normal((3, NUM_COLUMNS)).astype(np.float32)
    for name in FORMATS:
        products = [Product(kernels, level, name) for level in levels]
        results = [product(product.rows(x)) for product in products]
        for other in results[1:]:
            np.testing.assert_allclose(other, results[0], rtol=0, atol=3e-6 * np.abs(results[0]).max())


@pytest.mark.parametrize("name", FORMATS)
def test_avxvnni_gives_the_bits_of_avx2(kernels: ModuleType, rng: np.random.Generator, name: str) -> None:
    """The level differs from AVX2 in exact integer instructions only."""
    if "avxvnni" not in kernels.levels():
        pytest.skip("this machine has no avxvnni")
    x = rng.standard_normal((9, NUM_COLUMNS)).astype(np.float32)
    narrow, wide = (Product(kernels, level, name) for level in ("avx2", "avxvnni"))
    rows = narrow.rows(x)
    np.testing.assert_array_equal(narrow(rows).view(np.uint32), wide(rows).view(np.uint32))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "BF16"])
@pytest.mark.parametrize("num_tokens", [16, 37])
def test_amx_gives_the_bits_of_avx512(
    kernels: ModuleType, rng: np.random.Generator, name: str, num_tokens: int
) -> None:
    """The level differs from AVX-512 in exact integer sums only, but for bfloat16."""
    if "amx" not in kernels.levels():
        pytest.skip("this machine has no amx")
    x = rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32)
    x[0] = 1e3 * np.sign(x[0])  # the largest sums
    vector, tiles = (Product(kernels, level, name) for level in ("avx512", "amx"))
    rows = vector.rows(x)
    np.testing.assert_array_equal(vector(rows).view(np.uint32), tiles(rows).view(np.uint32))


def test_extreme_activations_do_not_overflow(kernels: ModuleType, level: str) -> None:
    """All activations at +-127 and weights at the ends of their range stay inside 32 bits."""
    for name in (name for name in FORMATS if name not in ("F32", "F16", "BF16")):
        product = Product(kernels, level, name, num_columns=512)
        weights = product.format.decode(product.raw).astype(np.float64)
        x = np.where(weights[:1] > 0, 1.0, -1.0).astype(np.float32)
        expected = x.astype(np.float64) @ weights.T
        np.testing.assert_allclose(
            product(product.rows(x)), expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max()
        )

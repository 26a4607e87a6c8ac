"""Products whose weights are widened to bfloat16 or float first, of every format on every level."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from products import FORMATS, NUM_COLUMNS, NUM_ROWS, Product, activation_values

from torchless.activation_types import multiplied_type


@pytest.fixture(params=["bf16", "f32"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=FORMATS)
def product(request: pytest.FixtureRequest, kernels: ModuleType, level: str, precision: str) -> Product:
    return Product(kernels, level, request.param, precision=precision)


def bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def test_activations_are_as_exact_as_asked(product: Product) -> None:
    assert product.activations == multiplied_type(product.format.name, product.precision)


@pytest.mark.parametrize("num_tokens", [1, 5, 33])
def test_product_matches_float64(product: Product, rng: np.random.Generator, num_tokens: int) -> None:
    rows = product.rows(rng.standard_normal((num_tokens, NUM_COLUMNS)).astype(np.float32))
    values = activation_values(product.kernels, rows, product.activations, NUM_COLUMNS)
    weights = product.format.decode(product.raw).astype(np.float32)
    if product.activations == "bf16":
        weights = bf16(weights)
    expected = values @ weights.astype(np.float64).T
    assert np.abs(product(rows) - expected).max() < 2e-6 * np.abs(expected).max()


def test_float_products_see_the_decoded_weights_to_the_bit(
    kernels: ModuleType, level: str, rng: np.random.Generator
) -> None:
    """A row with a single one takes out a column."""
    x = np.zeros((NUM_COLUMNS, NUM_COLUMNS), np.float32)
    np.fill_diagonal(x, 1)
    for name in FORMATS:
        product = Product(kernels, level, name, precision="f32")
        decoded = product.format.decode(product.raw).reshape(NUM_ROWS, NUM_COLUMNS)
        np.testing.assert_array_equal(product(product.rows(x)), decoded.T, err_msg=name)


def test_bits_do_not_depend_on_the_tokens_computed_together(
    product: Product, rng: np.random.Generator
) -> None:
    rows = product.rows(rng.standard_normal((33, NUM_COLUMNS)).astype(np.float32))
    alone = np.concatenate([product(rows[i : i + 1]) for i in range(33)])
    for size in (2, 3, 7, 8, 9, 17, 33):
        together = np.concatenate([product(rows[i : i + size]) for i in range(0, 33, size)])
        np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "BF16"])
def test_many_tokens_are_done_in_rounds(
    kernels: ModuleType, level: str, precision: str, rng: np.random.Generator, name: str
) -> None:
    product = Product(kernels, level, name, precision=precision)
    rows = product.rows(rng.standard_normal((261, NUM_COLUMNS)).astype(np.float32))
    parts = np.concatenate([product(rows[:100]), product(rows[100:])])
    np.testing.assert_array_equal(product(rows).view(np.uint32), parts.view(np.uint32))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "BF16"])
@pytest.mark.parametrize("num_rows", [64, 87, 130])
def test_one_token_takes_several_tiles_with_the_same_bits(
    kernels: ModuleType, level: str, precision: str, rng: np.random.Generator, name: str, num_rows: int
) -> None:
    product = Product(kernels, level, name, precision=precision, num_rows=num_rows)
    rows = product.rows(rng.standard_normal((3, NUM_COLUMNS)).astype(np.float32))
    alone = np.concatenate([product(rows[i : i + 1]) for i in range(3)])
    np.testing.assert_array_equal(alone.view(np.uint32), product(rows).view(np.uint32))


@pytest.mark.parametrize("num_columns", [1, 77, 257, 512])
def test_bfloat16_weights_of_any_width_times_floats(
    kernels: ModuleType, level: str, rng: np.random.Generator, num_columns: int
) -> None:
    product = Product(kernels, level, "BF16", num_columns=num_columns, precision="f32")
    x = rng.standard_normal((3, num_columns)).astype(np.float32)
    expected = x.astype(np.float64) @ product.format.decode(product.raw).reshape(NUM_ROWS, -1).T
    np.testing.assert_allclose(product(product.rows(x)), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_bias_residual_and_any_split_of_the_tiles(product: Product, rng: np.random.Generator) -> None:
    rows = product.rows(rng.standard_normal((9, NUM_COLUMNS)).astype(np.float32))
    bias = rng.standard_normal(NUM_ROWS).astype(np.float32)
    residual = rng.standard_normal((9, NUM_ROWS)).astype(np.float32)
    plain = product(rows)
    np.testing.assert_array_equal(product(rows, bias=bias, residual=residual), residual + (plain + bias))
    parts = product(rows, tile_begin=0, tile_end=1), product(rows, tile_begin=1, tile_end=3)
    np.testing.assert_array_equal(plain[:, :16], parts[0][:, :16])
    np.testing.assert_array_equal(plain[:, 16:], parts[1][:, 16:])

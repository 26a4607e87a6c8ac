"""Rotary embedding of one row against complex multiplication in float64."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float32]


def rotate(heads: Floats, layout: str, cos: Floats, sin: Floats) -> npt.NDArray[np.float64]:
    """Rotates the first 2 * pairs dimensions of each head as complex numbers."""
    pairs = cos.size
    out = heads.astype(np.float64)
    real, imaginary = (
        (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
        if layout == "interleaved"
        else (slice(0, pairs), slice(pairs, 2 * pairs))
    )
    turned = (out[:, real] + 1j * out[:, imaginary]) * (cos.astype(np.float64) + 1j * sin.astype(np.float64))
    out[:, real], out[:, imaginary] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize(
    ("head_dim", "pairs"), [(2, 1), (8, 4), (64, 32), (80, 16), (80, 40), (128, 64), (96, 21)]
)
def test_rope_rotates_pairs_and_leaves_the_rest(
    kernels: ModuleType, level: str, rng: np.random.Generator, layout: str, head_dim: int, pairs: int
) -> None:
    heads = rng.standard_normal((3, head_dim)).astype(np.float32)
    angles = rng.uniform(-np.pi, np.pi, pairs)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    got = kernels.rope_row(level, heads, layout, cos, sin)
    np.testing.assert_allclose(got, rotate(heads, layout, cos, sin), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(got[:, 2 * pairs :], heads[:, 2 * pairs :])


def test_rope_refuses_more_pairs_than_the_head_holds(kernels: ModuleType) -> None:
    with pytest.raises(ValueError, match="5 pairs do not fit"):
        kernels.rope_row(
            "scalar", np.zeros((1, 8), np.float32), "half", np.ones(5, np.float32), np.ones(5, np.float32)
        )

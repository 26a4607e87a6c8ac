"""Rotary frequencies of every scaling, against Hugging Face transformers 5.23 (numbers taken from its functions)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from torchless.blocks import read_rope
from torchless.config import ConfigReader
from torchless.errors import FormatError, UnsupportedError
from torchless.plan import RopeSpec

LLAMA3 = {"type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {
    "type": "yarn",
    "factor": 4.0,
    "yarn_beta_fast": 16.0,
    "yarn_beta_slow": 2.0,
    "attention_factor": 1.25,
}

# (head_dim, base, context, original context, settings) -> every fifth frequency, magnitude
CASES: list[tuple[int, float, int, int | None, dict[str, Any], list[float], float]] = [
    (
        64,
        1e4,
        4096,
        None,
        {"type": "linear", "factor": 4.0},
        [0.25, 0.05928434, 0.014058532, 0.0033338037, 0.00079056947, 0.00018747355, 4.4456985e-05],
        1.0,
    ),
    (
        64,
        5e5,
        131072,
        8192,
        LLAMA3,
        [1.0, 0.12868738, 0.016560441, 0.0012905480, 8.5702559e-06, 1.1028836e-06, 1.4192720e-07],
        1.0,
    ),
    (
        64,
        1e4,
        32768,
        4096,
        {"type": "yarn", "factor": 8.0},
        [1.0, 0.23713736, 0.056234129, 0.0088474015, 0.0010338216, 9.3736773e-05, 2.2228493e-05],
        1.20794415,
    ),
    (
        128,
        1e6,
        131072,
        32768,
        YARN,
        [
            1.0,
            0.33982083,
            0.1154782,
            0.039241899,
            0.013335215,
            0.0045315837,
            0.0011199466,
            0.00020218374,
            4.4456985e-05,
            1.5107409e-05,
            5.1338125e-06,
            1.7445766e-06,
            5.9284343e-07,
        ],
        1.25,
    ),
]


def read(
    rotated: int,
    base: float,
    context: int,
    original: int | None,
    settings: dict[str, Any],
    factors: Any = None,
) -> RopeSpec:
    metadata: dict[str, Any] = {"general.architecture": "llama", "llama.rope.freq_base": base}
    metadata |= {f"llama.rope.scaling.{key}": value for key, value in settings.items()}
    if original is not None:
        metadata["llama.rope.scaling.original_context_length"] = original
    source: Any = SimpleNamespace(metadata=metadata, tensors={}, path=Path("model"), rope_layout="half")
    return read_rope(ConfigReader(source), rotated=rotated, context_length=context, frequency_factors=factors)


@pytest.mark.parametrize(
    ("rotated", "base", "context", "original", "settings", "expected", "magnitude"), CASES
)
def test_scaling_equals_transformers(
    rotated: int,
    base: float,
    context: int,
    original: int | None,
    settings: dict[str, Any],
    expected: list[float],
    magnitude: float,
) -> None:
    spec = read(rotated, base, context, original, settings)
    np.testing.assert_allclose(spec.inv_freq[::5], expected, rtol=1e-6)
    assert spec.magnitude == pytest.approx(magnitude, rel=1e-7)


def test_without_scaling_frequencies_are_a_geometric_series() -> None:
    spec = read(8, 1e4, 4096, None, {})
    np.testing.assert_allclose(spec.inv_freq, [1.0, 0.1, 0.01, 0.001], rtol=1e-12)
    assert spec.magnitude == 1.0 and spec.layout == "half"


def test_frequency_factors_divide() -> None:
    spec = read(8, 1e4, 4096, None, {}, factors=[1.0, 2.0, 4.0, 8.0])
    np.testing.assert_allclose(spec.inv_freq, [1.0, 0.05, 0.0025, 0.000125], rtol=1e-12)
    with pytest.raises(FormatError, match="3 factors for 4 rotary pairs"):
        read(8, 1e4, 4096, None, {}, factors=[1.0, 2.0, 4.0])


def test_llama3_scaling_equals_the_factors_that_gguf_files_hold() -> None:
    """GGUF converters fold the llama3 rule into rope_freqs.weight: both routes must turn alike."""
    from torchless.bench.shapes import SHAPES
    from torchless.bench.synthetic import _frequency_factors

    shape = SHAPES["llama-3.2-1b"]
    assert shape.rope_scaling is not None
    factors = _frequency_factors(shape, shape.rope_scaling).tolist()
    by_rule = read(64, shape.rope_theta, 131072, 8192, LLAMA3)
    by_factors = read(64, shape.rope_theta, 131072, None, {}, factors=factors)
    np.testing.assert_allclose(by_factors.inv_freq, by_rule.inv_freq, rtol=1e-6)


@pytest.mark.parametrize("kind", ["longrope", "dynamic", "su", "mrope"])
def test_unknown_scaling_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=kind):
        read(64, 1e4, 4096, None, {"type": kind, "factor": 2.0})

"""Weights, cached keys and values, activations: each with a number format of its own, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from executors import logits_of, open_executor

import torchless
from torchless.activation_types import ACTIVATION_TYPES, activation_type, multiplied_type
from torchless.errors import InvalidRequestError

pytest.importorskip("torchless._core")

Find = Callable[[str], Path]
TEXT = "Once upon a time there was a little dog who liked to run in the park. One day he met a big red cat."


def nmse(found: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    return float(np.square(found - exact, dtype=np.float64).sum() / np.square(exact, dtype=np.float64).sum())


def wide(shared_data: Find, name: str) -> Path:
    return shared_data(f"stories260K-wide256/s260k-wide-{name}.gguf")


def token_ids(path: Path) -> list[int]:
    with torchless.load(path, threads=1) as model:
        return [int(i) for i in model.tokenizer.encode(TEXT)]


# -- activations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K_M", "Q2_K", "IQ4_XS", "Q8_0", "BF16"])
def test_exact_activations_bring_the_logits_of_exact_arithmetic(name: str, shared_data: Find) -> None:
    """float64 with the same weights is the truth; float activations leave rounding only."""
    path = wide(shared_data, name)
    ids = token_ids(path)
    exact = logits_of(open_executor(path, "reference"), ids, 64)
    errors = {
        kind: nmse(logits_of(open_executor(path, kv="f32", activations=kind), ids, 64), exact)
        for kind in ACTIVATION_TYPES
    }
    assert errors["f32"] < 1e-9
    assert errors["f32"] < errors["bf16"] < 2e-3
    if name != "BF16":
        assert errors["bf16"] < errors["int8"]


def test_a_load_says_its_activations_and_refuses_others(shared_data: Find) -> None:
    with torchless.load(activations="bf16") as model:
        assert model.info["activations"] == "bf16"
    with torchless.load() as model:
        assert model.info["activations"] == "int8"
    with pytest.raises(InvalidRequestError, match="activations must be one of int8, bf16, f32; got 'f64'"):
        torchless.load(activations="f64")


def test_floats_are_never_multiplied_as_bytes() -> None:
    assert activation_type("bf16") == "bf16"
    assert [multiplied_type(name, "int8") for name in ("F32", "F16", "BF16", "Q4_0")] == [
        *("f32", "f32", "bf16", "int8")
    ]
    assert [multiplied_type(name, "f32") for name in ("BF16", "Q4_0")] == ["f32", "f32"]


# -- combinations -------------------------------------------------------------------------------------------


def test_int4_weights_with_a_float16_cache(shared_data: Find) -> None:
    path = wide(shared_data, "Q4_0")
    ids = token_ids(path)
    half, full = (open_executor(path, kv=kv, activations="f32") for kv in ("f16", "f32"))
    assert nmse(logits_of(half, ids, 64), logits_of(full, ids, 64)) < 1e-5
    with torchless.load(path, kv="f16") as model:
        config = model.config
        per_token = 2 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
        assert model.info["memory_bytes"]["kv_page"] == 32 * per_token
        assert model.info["tensor_types"]["Q4_0"] > 30

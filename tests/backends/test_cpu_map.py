"""Elementwise functions on the CPU: near the reference, on every level, whatever reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import logits_of

from torchless.backends import cpu, reference
from torchless.backends.base import ExecutorOptions
from torchless.plan import Plan
from torchless.weights.source import TensorInfo

pytest.importorskip("torchless._core")

VOCAB, WIDTH = 70, 72
FUNCTIONS = ["scale", "soft_cap", "silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


class RandomSource:
    """An embedding table with a wide range of values, and a product."""

    path = "random"

    def __init__(self) -> None:
        random = np.random.default_rng(3)
        values = {
            "embd": random.standard_normal((VOCAB, WIDTH)) * np.geomspace(1e-3, 60, VOCAB)[:, None],
            "out": random.standard_normal((VOCAB, WIDTH)) / 8,
        }
        self.data = {name: value.astype("<f4").reshape(-1).view(np.uint8) for name, value in values.items()}
        self.tensors = {
            name: TensorInfo(name, value.shape, "F32", 4 * value.size) for name, value in values.items()
        }

    def raw(self, name: str) -> Any:
        return self.data[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        pass


def make_plan(source: RandomSource, function: str) -> Plan:
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    if function == "scale":
        mapped = plan.scale(x, -0.3)
    elif function == "soft_cap":
        mapped = plan.soft_cap(x, 20.0)
    else:
        mapped = plan.activate(x, function)  # type: ignore[arg-type]
    plan.set_output(plan.soft_cap(plan.linear(plan.add(mapped, mapped), "out"), 500.0))
    return plan


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_are_those_of_the_reference(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, ids = RandomSource(), list(range(VOCAB))
    options = ExecutorOptions(16, 96, 96, 2, "f32")
    exact = logits_of(reference.compile(make_plan(source, function), source, options), ids, 96)  # type: ignore[arg-type]
    found = logits_of(cpu.compile(make_plan(source, function), source, options), ids, 96)  # type: ignore[arg-type]
    # Squares reach 30,000, and products add numbers of that size up to small ones.
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-2 if function == "relu_squared" else 2e-4)
    assert np.abs(found).max() > 1
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    apart = logits_of(cpu.compile(make_plan(source, function), source, options), ids, 7)  # type: ignore[arg-type]
    np.testing.assert_array_equal(apart, found)


def test_a_factor_of_one_is_no_op() -> None:
    plan = make_plan(RandomSource(), "scale")
    x = plan.ops[0].out
    assert plan.scale(x, 1.0) is x

"""Elementwise functions on the CPU: near the reference, on every level, whatever reads them."""

from __future__ import annotations

import numpy as np
import pytest
from executors import logits_of
from random_sources import ArraySource

from torchless.backends import cpu, reference
from torchless.backends.base import ExecutorOptions
from torchless.plan import Plan

pytest.importorskip("torchless._core")

VOCAB, WIDTH = 70, 72
FUNCTIONS = ["scale", "soft_cap", "silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


def make_source() -> ArraySource:
    """An embedding table with a wide range of values, and a product."""
    random = np.random.default_rng(3)
    table = random.standard_normal((VOCAB, WIDTH)) * np.geomspace(1e-3, 60, VOCAB)[:, None]
    return ArraySource({"embd": table, "out": random.standard_normal((VOCAB, WIDTH)) / 8})


def make_plan(source: ArraySource, function: str) -> Plan:
    plan = Plan(source.shapes)
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
    source, ids = make_source(), list(range(VOCAB))
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
    plan = make_plan(make_source(), "scale")
    x = plan.ops[0].out
    assert plan.scale(x, 1.0) is x

"""Soft-capped, tilted and sunk attention, every cache type: the cpu backend against the reference backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from executors import logits_of

from torchless.backends import cpu, reference
from torchless.backends.base import ExecutorOptions
from torchless.plan import Plan, RopeSpec
from torchless.weights.gguf_writer import write_gguf
from torchless.weights.open import open_source

pytest.importorskip("torchless._core")

SPEC = RopeSpec("half", tuple(0.3 / (j + 1) for j in range(16)))
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, WIDTH = 6, 2, 32, 64
TENSORS = {
    "embd": (50, WIDTH),
    "q": (NUM_HEADS * HEAD_DIM, WIDTH),
    "k": (NUM_KV_HEADS * HEAD_DIM, WIDTH),
    "v": (NUM_KV_HEADS * HEAD_DIM, WIDTH),
    "o": (50, NUM_HEADS * HEAD_DIM),
    "sinks": (NUM_HEADS,),
}
ATTENTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 3.0},
    "alibi": {"slopes": tuple(2.0 ** -(h + 1) for h in range(NUM_HEADS))},
    "sinks": {"sinks": "sinks"},
    "temperature": {"temperature": (0.5, 100)},
    "all": {
        "softcap": 5.0,
        "slopes": tuple(0.01 * h for h in range(NUM_HEADS)),
        "sinks": "sinks",
        "window": 70,
    },
}


def plan_with(attention: dict[str, Any]) -> Plan:
    plan = Plan(dict(TENSORS))
    x = plan.embed("embd")
    shape = {name: value for name, value in attention.items() if name != "temperature"}
    spec = replace(SPEC, temperature=attention.get("temperature"))
    q = plan.rope(plan.linear(x, "q"), num_heads=NUM_HEADS, head_dim=HEAD_DIM, spec=spec)
    k = plan.rope(plan.linear(x, "k"), num_heads=NUM_KV_HEADS, head_dim=HEAD_DIM, spec=SPEC)
    heads = {"num_heads": NUM_HEADS, "num_kv_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM}
    mixed = plan.attention(q, k, plan.linear(x, "v"), layer=0, scale=0.02, **heads, **shape)
    plan.set_output(plan.linear(plan.select_outputs(mixed), "o"))
    return plan


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("attention") / "weights.gguf"

    def tensors() -> Any:
        for name, shape in TENSORS.items():
            scale = 1.0 if len(shape) == 1 else 8 / shape[1] ** 0.5
            values = (random.standard_normal(shape) * scale).astype(np.float32)
            yield name, shape, "F32", [values.reshape(-1).view(np.uint8)]

    write_gguf(path, {"general.architecture": "test"}, tensors())
    return path


def logits(
    backend: Any, weights: Path, attention: dict[str, Any], kv: str = "f32"
) -> npt.NDArray[np.float32]:
    options = ExecutorOptions(32, 600, 600, 2, kv)
    ids = np.random.default_rng(1).integers(0, 50, 600).tolist()
    executor = backend.compile(plan_with(attention), open_source(weights), options)
    return logits_of(executor, ids, 100)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_shaped_attention_equals_the_reference(name: str, weights: Path) -> None:
    expected = logits(reference, weights, ATTENTIONS[name])
    got = logits(cpu, weights, ATTENTIONS[name])
    assert np.abs(got - expected).max() < 3e-5 * expected.std()


def test_each_shape_changes_the_result(weights: Path) -> None:
    plain = logits(reference, weights, {})
    for name in ("softcap", "alibi", "sinks", "temperature", "all"):
        assert np.abs(logits(reference, weights, ATTENTIONS[name]) - plain).max() > 0.1


@pytest.mark.parametrize(
    ("kv", "error"), [("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 2e-2), ("k=q8_0,v=f16", 2e-2), ("q4_0", 0.3)]
)
def test_every_cache_type_is_as_close_as_its_bits_allow(kv: str, error: float, weights: Path) -> None:
    expected = logits(reference, weights, {})
    got = logits(cpu, weights, {}, kv)
    relative = np.sqrt(np.mean((got - expected) ** 2)) / expected.std()
    assert error / 20 < relative < error

"""Mixtures of experts: the core against the reference, and bits that do not depend on who shares an expert."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from executors import logits_of

from torchless import quants
from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.errors import UnsupportedError
from torchless.plan import Activation, Plan, Routing
from torchless.weights.source import TensorInfo

pytest.importorskip("torchless._core")

WIDTH, INNER, EXPERTS, VOCAB = 256, 320, 6, 40
PLAIN = {
    "embd": (VOCAB, WIDTH),
    "norm": (WIDTH,),
    "qkv": (64, WIDTH),
    "out": (WIDTH, 64),
    "router": (EXPERTS, WIDTH),
    "one": (WIDTH,),
    "selection": (EXPERTS,),
    "gate_bias": (EXPERTS, 2 * INNER),
    "down_bias": (EXPERTS, WIDTH),
    "head": (VOCAB, WIDTH),
}
ROUTINGS = {
    "softmax": Routing(EXPERTS, 2, "softmax"),
    "normalised": Routing(EXPERTS, 2, "softmax", normalised=True, scale=2.5),
    "softmax of the chosen": Routing(EXPERTS, 3, "softmax_chosen"),
    "sigmoid": Routing(EXPERTS, 1, "sigmoid"),
    "sparse mixer": Routing(EXPERTS, 2, "sparse_mixer"),
    "groups": Routing(
        EXPERTS, 2, "sigmoid", normalised=True, scale=1.5, num_groups=3, num_used_groups=2, group_best=2
    ),
    "groups by their best": Routing(EXPERTS, 2, "softmax", num_groups=2, num_used_groups=1),
}


class RandomSource:
    """A model of one layer whose stacks of experts have a type of their own."""

    path = "random"

    def __init__(self, expert_type: str, inner: int = INNER) -> None:
        random = np.random.default_rng(5)
        self.data: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, shape in PLAIN.items():
            shape = tuple(2 * inner if n == 2 * INNER else n for n in shape)
            values = random.standard_normal(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 1.0)
            self._add(name, shape, "F32", values.astype("<f4"))
        for name, rows, columns in (
            *(("gate", inner, WIDTH), ("up", inner, WIDTH)),
            *(("gate_up", 2 * inner, WIDTH), ("down", WIDTH, inner)),
        ):
            shape = (EXPERTS, rows, columns)
            count = EXPERTS * rows * columns
            blocks = random_blocks(BLOCK_TYPES[expert_type], count, columns**-0.5, [len(name), columns])
            self._add(name, shape, expert_type, np.concatenate(list(blocks)))

    def _add(self, name: str, shape: tuple[int, ...], kind: str, values: Any) -> None:
        self.data[name] = values.reshape(-1).view(np.uint8)
        self.tensors[name] = TensorInfo(name, shape, kind, self.data[name].size)

    def raw(self, name: str) -> Any:
        return self.data[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        pass


def make_plan(source: RandomSource, routing: Routing, activation: Activation, *, is_fused: bool) -> Plan:
    """Attention, experts, and a gate over all; fused: gate and up in one tensor, with biases."""
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    q = plan.linear(x, "qkv")
    mixed = plan.attention(q, q, q, layer=0, num_heads=4, num_kv_heads=4, head_dim=16, scale=0.25)
    x = plan.add(x, plan.linear(mixed, "out"))
    h = plan.rms_norm(x, "norm", eps=1e-5)
    logits, gate = plan.linear(h, "router"), plan.linear(h, "one")
    names: dict[str, Any] = {"gate": "gate", "up": "up"}
    if is_fused:
        names = {"gate": "gate_up", "up": None, "gate_bias": "gate_bias", "down_bias": "down_bias"}
        names["selection_bias"] = "selection"
    experts = plan.experts(h, logits, routing, activation=activation, down="down", **names)
    x = plan.add(x, plan.gate_rows(experts, gate) if is_fused else experts)
    plan.set_output(plan.linear(plan.select_outputs(x), "head"))
    return plan


def executors(source: RandomSource, plan: Plan, threads: tuple[int, ...]) -> list[Executor]:
    options = [ExecutorOptions(64, 256, 256, count, "f32") for count in threads]
    return [cpu.compile(plan, source, each) for each in options]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ROUTINGS)
def test_logits_equal_the_reference(name: str) -> None:
    source = RandomSource("F32")
    ids = np.random.default_rng(1).integers(0, VOCAB, 200).tolist()
    for is_fused, activation in product((False, True), ("silu", "swiglu_clamped")):
        plan = make_plan(source, ROUTINGS[name], activation, is_fused=is_fused)  # type: ignore[arg-type]
        exact = reference.compile(plan, source, ExecutorOptions(8, 256, 256, 1))  # type: ignore[arg-type]
        expected = logits_of(exact, ids, 200)
        [found] = executors(source, plan, (2,))
        for chunk in (200, 9):
            np.testing.assert_allclose(logits_of(found, ids, chunk), expected, rtol=0, atol=1e-4)


FORMATS = [name for name in quants.all_formats() if name in BLOCK_TYPES]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_bits_for_any_chunk_and_near_those_of_exact_arithmetic(name: str) -> None:
    inner = 512 if INNER % BLOCK_TYPES[name].num_weights else INNER
    source = RandomSource(name, inner)
    plan = make_plan(source, ROUTINGS["normalised"], "silu", is_fused=False)
    ids = np.random.default_rng(2).integers(0, VOCAB, 90).tolist()
    one, two = executors(source, plan, (1, 2))
    alone = logits_of(one, ids, 1)
    for executor, chunk in ((one, 90), (two, 1), (two, 3), (two, 33), (two, 90)):
        found = logits_of(executor, ids, chunk)
        np.testing.assert_array_equal(found.view(np.uint32), alone.view(np.uint32))
    exact = reference.compile(plan, source, ExecutorOptions(8, 256, 256, 1))  # type: ignore[arg-type]
    expected = logits_of(exact, ids, 90)
    assert np.square(alone - expected).mean() < 1e-3 * np.square(expected).mean()


def test_fused_and_plain_stages_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    source = RandomSource("Q4_0")
    plan = make_plan(source, ROUTINGS["normalised"], "silu", is_fused=False)
    ids = np.random.default_rng(3).integers(0, VOCAB, 40).tolist()
    [fused] = executors(source, plan, (2,))
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    [plain] = executors(source, plan, (2,))
    assert len(plain.lowered.stages) > len(fused.lowered.stages)  # type: ignore[attr-defined]
    for chunk in (1, 40):
        np.testing.assert_array_equal(logits_of(fused, ids, chunk), logits_of(plain, ids, chunk))


def test_memory_is_what_was_announced() -> None:
    source = RandomSource("Q8_0")
    plan = make_plan(source, ROUTINGS["groups"], "silu", is_fused=True)
    options = ExecutorOptions(8, 64, 64, 2, "f32")
    announced = cpu.required_bytes(plan, source, options)  # type: ignore[arg-type]
    used = cpu.compile(plan, source, options).memory_bytes()  # type: ignore[arg-type]
    assert announced["weights"] <= used["weights"] <= announced["weights"] + 100_000  # vectors come on top
    assert used["scratch"] <= announced["scratch"] + 8192


def test_shapes_that_do_not_fit_are_refused() -> None:
    source = RandomSource("F32")
    with pytest.raises(UnsupportedError, match="router logits"):
        make_plan(source, Routing(EXPERTS + 1, 2, "softmax"), "silu", is_fused=False)
    with pytest.raises(UnsupportedError, match="groups"):
        make_plan(source, Routing(EXPERTS, 2, "softmax", num_groups=4), "silu", is_fused=False)
    source.tensors["down"] = TensorInfo("down", (EXPERTS, WIDTH, INNER + 1), "F32", 1)
    with pytest.raises(UnsupportedError, match="has the shape"):
        make_plan(source, ROUTINGS["softmax"], "silu", is_fused=False)

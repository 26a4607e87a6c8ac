"""Lowering for the CPU: what is fused, what must not be, and how the arena is laid out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.backends.cpu.arena import Lifetime, plan_arena
from torchless.backends.cpu.fusions import read_by, written_by
from torchless.backends.cpu.lower import lower
from torchless.backends.cpu.stages import LoweredPlan
from torchless.plan import Plan, RopeSpec, Value

SHAPES: dict[str, tuple[int, ...]] = {
    "embd": (100, 64),
    "norm": (64,),
    "q": (64, 64),
    "k": (32, 64),
    "v": (32, 64),
    "o": (64, 64),
    "gate": (128, 64),
    "up": (128, 64),
    "down": (64, 128),
    "head": (100, 64),
}
SPEC = RopeSpec("half", tuple(1.0 / (j + 1) for j in range(8)))


def one_layer() -> Plan:
    plan = Plan(SHAPES)
    x = plan.embed("embd")
    h = plan.rms_norm(x, "norm", eps=1e-5)
    q = plan.rope(plan.linear(h, "q"), num_heads=4, head_dim=16, spec=SPEC)
    k = plan.rope(plan.linear(h, "k"), num_heads=2, head_dim=16, spec=SPEC)
    v = plan.linear(h, "v")
    a = plan.attention(q, k, v, layer=0, num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
    x = plan.add(x, plan.linear(a, "o"))
    h = plan.rms_norm(x, "norm", eps=1e-5)
    x = plan.add(
        x, plan.linear(plan.glu(plan.linear(h, "gate"), plan.linear(h, "up"), activation="silu"), "down")
    )
    plan.set_output(plan.linear(plan.rms_norm(plan.select_outputs(x), "norm", eps=1e-5), "head"))
    return plan


def wide_mlp() -> Plan:
    plan = Plan({**SHAPES, "gate": (512, 64), "up": (512, 64), "down": (64, 512)})
    x = plan.embed("embd")
    hidden = plan.glu(plan.linear(x, "gate"), plan.linear(x, "up"), activation="silu")
    plan.set_output(plan.linear(plan.linear(hidden, "down"), "head"))
    return plan


def test_gate_up_and_glu_become_one_stage_when_the_width_has_whole_groups() -> None:
    stages = kinds(lower(wide_mlp(), lambda name: "int8x32"))
    assert stages == ["embed", "convert", "gated_matmul", "matmul", "convert", "head"]
    assert "gated_matmul" not in kinds(lower(one_layer(), lambda name: "int8x32"))  # 128 wide


def test_gated_product_needs_one_number_format() -> None:
    """gate and up may read different formats, or the GLU be read in two: then nothing is fused."""
    assert "glu" in kinds(lower(wide_mlp(), lambda name: "f32" if name == "up" else "int8x32"))


def kinds(lowered: LoweredPlan) -> list[str]:
    return [stage.kind for stage in lowered.stages]


def test_layer_takes_nine_stages() -> None:
    lowered = lower(one_layer(), lambda name: "int8x32")
    layer = [
        "rms_norm",
        "matmul",
        "rope_kv",
        "attention",
        "convert",
        "matmul",
        "rms_norm",
        "matmul",
        "glu",
        "matmul",
    ]
    assert kinds(lowered) == ["embed", *layer, "rms_norm", "head"]


def test_products_of_one_input_are_grouped_by_number_format() -> None:
    lowered = lower(one_layer(), lambda name: "f32" if name == "v" else "int8x32")
    groups = [[part[0] for part in s.args["parts"]] for s in lowered.stages if s.kind == "matmul"]  # type: ignore[attr-defined]
    assert groups == [["q", "k"], ["v"], ["o"], ["gate", "up"], ["down"]]


def test_residual_is_accumulated_in_place_only_when_nothing_else_needs_it() -> None:
    plan = Plan(SHAPES)
    x = plan.embed("embd")
    y = plan.linear(x, "o")
    total = plan.add(x, y)
    plan.set_output(plan.linear(plan.add(total, x), "head"))  # x is needed again
    lowered = lower(plan, lambda name: "f32")
    assert [part[3] for s in lowered.stages if s.kind == "matmul" for part in s.args["parts"]] == [False]  # type: ignore[attr-defined]
    assert kinds(lowered).count("add") == 2

    inplace = lower(one_layer(), lambda name: "f32")
    flags = {part[0]: part[3] for s in inplace.stages if s.kind == "matmul" for part in s.args["parts"]}  # type: ignore[attr-defined]
    assert flags["o"] and flags["down"] and not flags["q"]
    assert "add" not in kinds(inplace)


def test_rows_are_shared_only_while_their_source_stays_as_it_is() -> None:
    shared = [
        s.args["shared"] for s in lower(one_layer(), lambda name: "int8x32").stages if "shared" in s.args
    ]
    assert shared == [True, True, True, True]  # two norms, attention's conversion, the last norm
    plan = Plan(SHAPES)
    x = plan.embed("embd")
    plan.set_output(plan.linear(plan.add(x, plan.linear(plan.rms_norm(x, "norm", eps=1e-5), "o")), "head"))
    lowered = lower(plan, lambda name: "f32")  # the product adds to what the norm reads
    assert [s.args["shared"] for s in lowered.stages if s.kind == "rms_norm"] == [False]


def test_what_is_read_for_a_shared_stage_stays_alive() -> None:
    lowered = lower(one_layer(), lambda name: "int8x32")
    for index, stage in enumerate(lowered.stages):
        if stage.args.get("shared"):
            readers = [i for i, s in enumerate(lowered.stages) if stage.args["out"] in read_by(s)]
            assert lowered.buffers[stage.args["x"]].last >= max(readers) > index  # type: ignore[index]
            assert stage.args["x"] not in written_by(lowered.stages[max(readers)])


def test_without_fusion_every_op_is_a_stage() -> None:
    lowered = lower(one_layer(), lambda name: "int8x32", fuse=False)
    layer = "rms_norm convert matmul matmul matmul rope_kv attention convert matmul add"
    mlp = "rms_norm convert matmul matmul glu convert matmul add"
    assert kinds(lowered) == f"embed {layer} {mlp} select rms_norm convert matmul".split()
    assert not lowered.is_fused


def test_values_alive_together_never_share_memory() -> None:
    lowered = lower(one_layer(), lambda name: "int8x32")
    blocks = [Lifetime(b.width * 4, b.first, b.last) for b in lowered.buffers]
    offsets, _ = plan_arena(blocks)
    check_disjoint(blocks, offsets)
    for stage in lowered.stages:  # every buffer that a stage names is alive during it
        index = lowered.stages.index(stage)
        for key in ("x", "out", "q", "k", "v", "gate", "up"):
            if isinstance(stage.args.get(key), int) and stage.kind != "embed":
                buffer = lowered.buffers[stage.args[key]]  # type: ignore[index]
                assert buffer.first <= index <= buffer.last


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(0, 8)), max_size=40))
def test_arena_of_random_lifetimes_is_disjoint_and_tight(values: list[tuple[int, int, int]]) -> None:
    blocks = [Lifetime(size, first, first + length) for size, first, length in values]
    offsets, total = plan_arena(blocks)
    check_disjoint(blocks, offsets)
    assert all(offset + block.num_bytes <= total for offset, block in zip(offsets, blocks, strict=True))
    assert total <= sum(-(-block.num_bytes // 64) * 64 for block in blocks) + 64


def check_disjoint(blocks: list[Lifetime], offsets: list[int]) -> None:
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[:i]):
            if a.first <= b.last and b.first <= a.last:
                assert offsets[i] >= offsets[j] + b.num_bytes or offsets[j] >= offsets[i] + a.num_bytes


def test_rotated_value_used_twice_is_refused() -> None:
    from torchless.errors import UnsupportedError

    plan = Plan(SHAPES)
    x = plan.embed("embd")
    q = plan.rope(plan.linear(x, "q"), num_heads=4, head_dim=16, spec=SPEC)
    k: Value = plan.linear(x, "k")
    a = plan.attention(
        q, k, plan.linear(x, "v"), layer=0, num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25
    )
    plan.set_output(plan.linear(plan.add(a, q), "head"))
    with pytest.raises(UnsupportedError, match="rotates in place"):
        lower(plan, lambda name: "f32")

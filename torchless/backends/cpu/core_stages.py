"""Hands the buffers and stages of a lowered plan to the C++ core, names replaced by handles."""

from __future__ import annotations

from typing import Any

from torchless.backends.cpu.layout import Layout
from torchless.backends.cpu.lower_experts import Stack

__all__ = ["add_stages"]


def add_stages(core: Any, layout: Layout, handles: dict[str, dict[Any, int]]) -> None:
    lowered = layout.lowered
    for buffer, offset in zip(lowered.buffers, layout.offsets, strict=True):
        core.add_buffer(
            offset, buffer.rows == "outputs", buffer.format, buffer.width, buffer.copies, buffer.spare
        )
    for spec, cos, sin in lowered.ropes:
        numbers = list(spec.inv_freq), spec.magnitude, *(spec.temperature or (0.0, 1))
        core.add_rope(spec.layout == "interleaved", *numbers, cos, sin)
    layers = {op.layer: i for i, op in enumerate(layout.plan.cache_ops)}
    for stage in lowered.stages:
        args: dict[str, Any] = dict(stage.args)
        if "table" in args:
            args["table"] = handles["table"][args["table"]]
        for key in ("weight", "decay", "step_bias"):
            if key in args:
                args[key] = handles["vector"][args[key]]
        if "layer" in args:
            args["layer"] = layers[args["layer"]]
        if stage.kind == "attention":
            args["sinks"] = -1 if args["sinks"] is None else handles["vector"][args["sinks"]]
        if stage.kind == "rope_kv":
            args["parts"] = [
                (*part, -1 if norm is None else handles["vector"][norm], eps)
                for *part, norm, eps in args["parts"]
            ]
        if stage.kind == "matmul":
            args["parts"] = [
                (
                    handles["matrix"][weight],
                    -1 if bias is None else handles["vector"][bias],
                    out,
                    accumulate,
                )
                for weight, bias, out, accumulate in args["parts"]
            ]
        if stage.kind == "head":
            weight, bias, *rest = args["part"]
            args["part"] = (
                handles["matrix"][weight],
                -1 if bias is None else handles["vector"][bias],
                *rest,
            )
        if stage.kind in ("route", "layer_norm"):
            for key in args.keys() & {"bias", "expert_scale"}:
                args[key] = -1 if args[key] is None else handles["vector"][args[key]]
        if stage.kind == "heads_matmul":
            stack = Stack(args["heads"], None)
            args["heads"] = (handles["stack"][stack], layout.num_experts(stack))
        for key, value in args.items():
            if isinstance(value, Stack):
                args[key] = (handles["stack"][value], handles["biases"].get(value, -1))
        for key in ("gate", "up"):
            if stage.kind == "gated_matmul":
                weight, bias = args[key]
                args[key] = (handles["matrix"][weight], -1 if bias is None else handles["vector"][bias])
        getattr(core, stage.kind)(**args)

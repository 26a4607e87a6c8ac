"""What one step runs on the CPU, in words: each stage with what was fused into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torchless import quants
from torchless.activation_types import ActivationType
from torchless.backends.cpu.extension import load_extension
from torchless.backends.cpu.fusions import read_by
from torchless.backends.cpu.layout import fuses
from torchless.backends.cpu.lower import lower
from torchless.backends.cpu.stages import LoweredPlan, Stage
from torchless.plan import Plan
from torchless.weights.source import WeightSource

__all__ = ["list_stages"]


def list_stages(plan: Plan, source: WeightSource, activations: ActivationType = "int8") -> Iterator[str]:
    """A line for each stage and, indented, one for each thing fused into it.

    Raises:
        UnsupportedError: the plan cannot run on this backend.
    """
    formats: dict[int, str] = {type_id: name for type_id, _, _, name in load_extension().formats(activations)}

    def activation_format(name: str) -> str:
        return formats[quants.by_name(source.tensors[name].type).id]

    lowered = lower(plan, activation_format, fuse=fuses())
    yield f"{len(lowered.stages)} stages" + ("" if lowered.is_fused else ", not fused (TORCHLESS_FUSE=0)")
    for index, stage in enumerate(lowered.stages):
        yield f"{index:4d}  {_title(stage, lowered)}"
        yield from (f"        + {line}" for line in _fused(index, stage, lowered))


def _title(stage: Stage, lowered: LoweredPlan) -> str:
    args: dict[str, Any] = stage.args
    if stage.kind in ("matmul", "head"):
        names = [part[0] for part in args.get("parts", [args.get("part")])]
    elif stage.kind == "gated_matmul":
        names = [args["gate"][0], args["up"][0]]
    elif stage.kind in ("experts_gated", "experts_down"):
        names = [args[key].weight for key in ("gate", "up", "down") if key in args]
    elif stage.kind == "heads_matmul":
        names = [args["heads"]]
    elif stage.kind == "route":
        names = [f"{args['routing'][1]} of {args['routing'][0]} by {args['routing'][2]}"]
    elif stage.kind == "gated_delta":
        names = ["{1} heads of {2} x {3}".format(*args["shape"])]
    elif stage.kind in ("rope_kv", "attention"):
        names = [f"layer {args['layer']}"]
    else:
        names = [name for name in (args.get("table"), args.get("weight")) if name]
    out = args.get("out")
    written = "" if out is None else f" -> {lowered.buffers[out].format}[{lowered.buffers[out].width}]"
    return f"{stage.kind}{' ' if names else ''}{' '.join(names)}{written}"


def _fused(index: int, stage: Stage, lowered: LoweredPlan) -> Iterable[str]:
    args: dict[str, Any] = stage.args
    if args.get("shared"):
        readers = [i for i, other in enumerate(lowered.stages) if args["out"] in read_by(other)]
        where = " and ".join(map(str, readers))
        yield f"with few rows left out: the threads of stage {where} make them for themselves"
    is_norm = stage.kind in ("rms_norm", "layer_norm")
    if is_norm and lowered.buffers[args["x"]].rows != lowered.buffers[args["out"]].rows:
        yield "selection of the rows whose logits are wanted"
    if stage.kind == "gated_norm":
        yield f"norms of {args['num_heads']} heads, {args['activation']} of the gate"
    if (is_norm or stage.kind in ("glu", "map", "gated_norm")) and lowered.buffers[
        args["out"]
    ].format != "f32":
        yield "conversion to the number format of the next product"
    if stage.kind == "gated_matmul":
        yield f"gate and up as one product, {args['activation']}, conversion to the next product's number format"
    if stage.kind == "rope_kv" and any(part[5] for part in args["parts"]):
        yield "norms of heads"
    if stage.kind == "matmul" and len(args["parts"]) > 1:
        yield f"{len(args['parts'])} products of one input"
    if stage.kind == "experts_gated":
        yield f"gate and up of each expert, {args['activation']}, conversion to the next product's number format"
    if stage.kind == "experts_down" and args["accumulate"]:
        yield "addition to the residual"
    if stage.kind == "matmul" and any(part[3] for part in args["parts"]):
        yield "addition to the residual"
    if stage.kind == "head":
        yield "choice of the best logits, when no more are wanted"
    if stage.kind == "attention" and args["rope_kv"]:
        yield f"with few rows in each sequence, the work of stage {index - 1}"

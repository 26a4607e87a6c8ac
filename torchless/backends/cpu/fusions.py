"""Fusion over a list of stages: which rows the readers of a buffer may make themselves.

A norm or a conversion of few rows takes a microsecond, the barrier behind it as long. The core lets such a stage out of
a step and every thread of the products that read it makes the rows again, if the stage is marked ``shared`` here. That
is right when nothing changes the stage's input before its last reader is done, and when products are its only readers.
"""

from __future__ import annotations

from collections.abc import Iterable

from torchless.backends.cpu.stages import LoweredPlan, Stage

__all__ = ["read_by", "share_rows", "written_by"]

_MAKERS = ("rms_norm", "layer_norm", "convert")
_PRODUCTS = ("matmul", "gated_matmul", "head", "experts_gated")


def share_rows(lowered: LoweredPlan) -> None:
    """Marks the stages whose readers may do their work, and keeps what they read alive until then."""
    for index, stage in enumerate(lowered.stages):
        if stage.kind not in _MAKERS:
            continue
        source, out = stage.args["x"], stage.args["out"]
        readers = [i for i, other in enumerate(lowered.stages) if out in read_by(other)]
        if not readers or out == lowered.output:
            continue
        are_products = all(_is_product_of(lowered.stages[i], out) for i in readers)
        between = lowered.stages[index + 1 : readers[-1] + 1]
        if not are_products or any(source in written_by(other) for other in between):
            continue
        stage.args["shared"] = True
        assert isinstance(source, int)
        buffer = lowered.buffers[source]
        buffer.last = max(buffer.last, readers[-1])


def _is_product_of(stage: Stage, buffer: object) -> bool:
    """Whether a stage makes few rows of `buffer` for itself, if it may."""
    return stage.kind in _PRODUCTS and stage.args["x"] == buffer and stage.args.get("up_x", buffer) == buffer


def read_by(stage: Stage) -> set[object]:
    """The buffers that a stage reads, those that it changes included."""
    args = stage.args
    if stage.kind == "columns":
        pieces = args["pieces"]
        assert isinstance(pieces, list)
        return {piece[0] for piece in pieces}
    if stage.kind == "weighted_sum":
        terms = args["terms"]
        assert isinstance(terms, list)
        return {args["base"], args["coefficients"], *terms}
    if stage.kind == "gated_delta":
        return {args["x"], *(args[name][0] for name in ("step", "beta"))}  # type: ignore[index]
    names = {
        "embed": (),
        "rope_kv": ("k", "v"),
        "glu": ("gate", "up"),
        "add": ("a", "b"),
        "attention": ("q",),
        "route": ("logits",),
        "experts_gated": ("x", "up_x"),
        "gate_rows": ("x", "gate"),
        "match_magnitude": ("x", "like"),
        "gated_norm": ("x", "gate"),
    }.get(stage.kind, ("x",))
    changed = {part[2] for part in _parts(stage) if part[3]} if stage.kind in _PRODUCTS else set()
    if stage.kind == "rope_kv":
        changed = {place for part in _parts(stage) for place in part[:2]}
    if stage.kind == "experts_down" and args["accumulate"]:
        changed = {args["out"]}
    return {args[name] for name in names} | changed


def written_by(stage: Stage) -> set[object]:
    """The buffers that a stage writes or changes."""
    if stage.kind == "rope_kv":
        return {part[0] for part in _parts(stage)}
    if stage.kind in ("matmul", "head"):
        return {part[2] for part in _parts(stage)}
    return {stage.args["out"]} if "out" in stage.args else set()


def _parts(stage: Stage) -> Iterable[tuple[object, ...]]:
    parts = [stage.args["part"]] if stage.kind == "head" else stage.args.get("parts", ())
    assert isinstance(parts, Iterable)
    return parts

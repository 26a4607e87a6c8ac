"""Lowers a plan to the stages of the C++ core: number formats, grouped products, in-place residuals.

A stage runs on all threads and ends with a barrier, so fewer stages are faster. Rewrites made here:

- a norm or a GLU writes its result directly in the number format that the next product reads;
- products of the same input (q, k and v) become one stage;
- gate, up and the GLU become one stage, a group of 256 columns at a time;
- ``add(x, linear(y))`` accumulates into x when x is not needed afterwards, and so does a sum of experts;
- a norm of selected rows selects them itself;
- norms of heads and rotary embedding happen in place, in one stage with storing keys and values; attention takes that
  stage's work over in a step where each sequence has few rows;
- norms of heads that a gate multiplies are one stage with the gate;
- with few rows, the threads of a product each make its input again instead of meeting behind a norm (`fusions.py`);
- the product that makes the logits can keep the best of each row instead of writing them all.

None of them changes a result's bits: they move the same float operations, they do not reorder sums. ``fuse=False``
(``TORCHLESS_FUSE=0``) leaves all of them out but the in-place rotation and the gated norm: the slow twin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from torchless.backends.cpu.fusions import share_rows
from torchless.backends.cpu.lower_attention import emit_attention, is_made_by_attention, norm_name
from torchless.backends.cpu.lower_experts import emit_experts, gate_stacks
from torchless.backends.cpu.lower_products import emit_linear
from torchless.backends.cpu.lower_recurrent import emit_gated_norm, emit_recurrent, is_gated
from torchless.backends.cpu.stages import F32, Buffer, LoweredPlan, Stage
from torchless.errors import UnsupportedError
from torchless.plan import (
    Add,
    Attention,
    CausalConv,
    Columns,
    Embed,
    Experts,
    GatedDelta,
    GateRows,
    Glu,
    HeadsLinear,
    KeepAbove,
    LayerNorm,
    Linear,
    Map,
    MatchMagnitude,
    Op,
    Piece,
    Plan,
    RmsNorm,
    Rope,
    ScaleColumns,
    SelectOutputs,
    Value,
    WeightedSum,
)

__all__ = ["Buffer", "LoweredPlan", "Stage", "lower"]


def lower(plan: Plan, activation_format: Callable[[str], str], *, fuse: bool = True) -> LoweredPlan:
    """Lowers `plan`; `activation_format(weight name)` says which number format its product reads."""
    lowered = _Lowering(plan, activation_format, fuse).run()
    if fuse:
        share_rows(lowered)
    return lowered


class _Lowering:
    def __init__(self, plan: Plan, activation_format: Callable[[str], str], fuse: bool) -> None:
        if plan.output is None:
            raise ValueError("the plan has no output")
        self.plan = plan
        self.activation_format = activation_format
        self.fuse = fuse
        self.result = LoweredPlan(is_fused=fuse)
        # (value id, format) -> buffer
        self.locations: dict[tuple[int, str], int] = {}
        self.uses: Mapping[int, list[int]] = _uses(plan)
        self.selected: dict[int, Value] = {}  # selected rows that a norm takes from this value itself
        self.done: set[int] = set()  # indices of ops already emitted out of order

    def run(self) -> LoweredPlan:
        for spec in dict.fromkeys(op.spec for op in self.plan.ops if isinstance(op, Rope)):
            pairs = len(spec.inv_freq)
            self.result.ropes.append(
                (spec, self._buffer("tokens", F32, pairs), self._buffer("tokens", F32, pairs))
            )
        for index, op in enumerate(self.plan.ops):
            if index not in self.done:
                self._emit(index, op)
        output = self.plan.output
        assert output is not None
        self.result.output = self._read(output, F32)
        for cos_sin in self.result.ropes:  # written before the first stage, read by every layer
            for buffer in cos_sin[1:]:
                self.result.buffers[buffer].first = -1
                self.result.buffers[buffer].last = len(self.result.stages)
        self.result.buffers[self.result.output].last = len(self.result.stages)
        return self.result

    # -- one method per op ------------------------------------------------------------------------

    def _emit(self, index: int, op: Op) -> None:
        if isinstance(op, Embed):
            table = {"table": op.weight, "scale": op.scale, **_index(self.plan, op)}
            self._emit_floats("embed", op.out, **table)
        elif isinstance(op, RmsNorm) and (is_made_by_attention(self, op) or is_gated(self, op)):
            pass  # emitted with what reads it
        elif isinstance(op, RmsNorm) and op.num_heads > 1:
            weight = norm_name(op)
            self._emit_floats("heads_norm", op.out, x=op.x, weight=weight, num_heads=op.num_heads, eps=op.eps)
        elif isinstance(op, RmsNorm):
            self._emit_norm("rms_norm", op, norm_name(op))
        elif isinstance(op, LayerNorm):
            self._emit_norm("layer_norm", op, op.weight, bias=op.bias)
        elif isinstance(op, Linear):
            emit_linear(self, index, op)
        elif isinstance(op, Rope):
            pass  # emitted with the attention that reads it
        elif isinstance(op, Attention):
            emit_attention(self, op)
        elif isinstance(op, CausalConv | GatedDelta):
            emit_recurrent(self, op)
        elif isinstance(op, Glu) and emit_gated_norm(self, op):
            pass
        elif isinstance(op, Map):
            self._emit_direct("map", op.out, x=op.x, function=op.function, parameter=op.parameter)
        elif isinstance(op, Glu):
            up, start = (op.up.x, op.up.start) if isinstance(op.up, Piece) else (op.up, 0)
            self._emit_direct("glu", op.out, gate=op.gate, up=up, up_start=start, activation=op.activation)
        elif isinstance(op, HeadsLinear):
            self._emit_floats("heads_matmul", op.out, x=op.x, heads=op.head_weights)
        elif isinstance(op, Columns):
            pieces = [(self._read(p.x, F32), p.start, p.width, p.stride) for p in op.pieces]
            self._emit_floats("columns", op.out, pieces=pieces, count=op.count)
        elif isinstance(op, Experts):
            emit_experts(self, index, op)
        elif isinstance(op, GateRows):
            self._emit_floats("gate_rows", op.out, x=op.x, gate=op.gate)
        elif isinstance(op, WeightedSum):
            terms = [self._read(term, F32) for term in op.terms]
            sums = {"base": op.base, "coefficients": op.coefficients, "first": op.first}
            self._emit_floats("weighted_sum", op.out, terms=terms, **sums)
        elif isinstance(op, MatchMagnitude):
            self._emit_floats("match_magnitude", op.out, x=op.x, like=op.like, floor=op.floor)
        elif isinstance(op, KeepAbove):
            self._emit_floats("keep_above", op.out, x=op.x, deviations=op.deviations)
        elif isinstance(op, ScaleColumns):
            self._emit_floats("scale_columns", op.out, x=op.x, weight=op.weight)
        elif isinstance(op, Add):
            self._emit_floats("add", op.out, a=op.a, b=op.b)
        elif isinstance(op, SelectOutputs) and self._is_for_one_norm(op.out):
            self.selected[op.out.id] = op.x
        elif isinstance(op, SelectOutputs):
            self._emit_floats("select", op.out, x=op.x)
        else:
            raise UnsupportedError(f"the cpu backend has no op {type(op).__name__}")

    def _emit_norm(self, kind: str, op: RmsNorm | LayerNorm, weight: str, **args: object) -> None:
        """One norm for each number format: its readers may make its few rows for themselves."""
        x = self._read(self.selected.get(op.x.id, op.x), F32)
        direct, rest = self._formats_of(op.out)
        for number_format in self._formats_wanted(op.out) if self.fuse else [direct]:
            out = self._define(op.out, number_format)
            self._stage(kind, x=x, weight=weight, eps=op.eps, out=out, shared=False, **args)
            self._touch(x, len(self.result.stages) - 1)
        if not self.fuse:
            self._convert(op.out, rest)

    def _emit_floats(self, kind: str, result: Value, **args: object) -> None:
        """A stage that reads and writes floats."""
        read = {name: self._read(x, F32) if isinstance(x, Value) else x for name, x in args.items()}
        self._stage(kind, **read, out=self._define(result, F32))
        self._convert_for_consumers(result)

    def _emit_direct(self, kind: str, result: Value, **args: object) -> None:
        """A stage that reads values as floats and writes its result as the next product reads it."""
        direct, rest = self._formats_of(result)
        read = {name: self._read(x, F32) if isinstance(x, Value) else x for name, x in args.items()}
        self._stage(kind, **read, out=self._define(result, direct))
        self._convert(result, rest)

    def _residual_of(self, index: int, op: Linear | Experts) -> tuple[int, Add, Value] | None:
        """The `add(other, op.out)` that can be done in place: nothing else reads op.out, or other later."""
        if not self.fuse or len(self.uses[op.out.id]) != 1 or op.out == self.plan.output:
            return None
        add_index = self.uses[op.out.id][0]
        add = self.plan.ops[add_index]
        if not isinstance(add, Add) or add.a == add.b:
            return None
        other = add.a if add.b == op.out else add.b
        if (other.id, F32) not in self.locations:
            return None
        if any(use > index and use != add_index for use in self.uses[other.id]):
            return None
        return add_index, add, other

    def _is_for_one_norm(self, value: Value) -> bool:
        ops = [self.plan.ops[index] for index in self.uses[value.id]]
        return (
            self.fuse
            and value != self.plan.output
            and len(ops) == 1
            and isinstance(ops[0], RmsNorm | LayerNorm)
            and getattr(ops[0], "num_heads", 1) == 1
        )

    # -- buffers ----------------------------------------------------------------------------------

    def _formats_of(self, value: Value) -> tuple[str, list[str]]:
        """Formats in which `value` is read: the one to produce directly, and those converted from it."""
        formats = self._formats_wanted(value)
        if len(formats) == 1 and (self.fuse or F32 in formats):
            return formats[0], []
        return F32, [f for f in formats if f != F32]

    def _formats_wanted(self, value: Value) -> list[str]:
        """Formats in which `value` is read, once each."""
        formats: dict[str, None] = {}
        for index in self.uses[value.id]:
            formats.update(dict.fromkeys(self._formats_read(self.plan.ops[index], value)))
        if value == self.plan.output:
            formats[F32] = None
        return list(formats)

    def _formats_read(self, op: Op, value: Value) -> list[str]:
        """Number formats in which an op reads one of its inputs."""
        if isinstance(op, Linear):
            return [self.activation_format(op.weight)]
        if isinstance(op, Experts) and op.x == value:
            formats = [self.activation_format(stack.weight) for stack in gate_stacks(op)]
            return formats + [F32] * (op.logits == value)
        return [F32]

    def _convert_for_consumers(self, value: Value) -> None:
        direct, rest = self._formats_of(value)
        self._convert(value, [f for f in dict.fromkeys([direct, *rest]) if f != F32])

    def _convert(self, value: Value, formats: list[str]) -> None:
        for number_format in formats:
            x = self._read(value, F32)
            self._stage("convert", x=x, out=self._define(value, number_format), shared=False)

    def _buffer(self, rows: str, number_format: str, width: int, copies: int = 1, spare: int = 0) -> int:
        now = len(self.result.stages)
        self.result.buffers.append(Buffer(rows, number_format, width, now, now, copies, spare))
        return len(self.result.buffers) - 1

    def _define(self, value: Value, number_format: str) -> int:
        """A new buffer for `value`, written by the next stage."""
        buffer = self._buffer(value.rows, number_format, value.width)
        self.locations[value.id, number_format] = buffer
        return buffer

    def _read(self, value: Value, number_format: str) -> int:
        """The buffer of `value`, read by the next stage."""
        buffer = self.locations[value.id, number_format]
        self._touch(buffer, len(self.result.stages))
        return buffer

    def _touch(self, buffer: int, stage: int) -> None:
        self.result.buffers[buffer].last = max(self.result.buffers[buffer].last, stage)

    def _stage(self, kind: str, **args: object) -> None:
        self.result.stages.append(Stage(kind, args))


def _index(plan: Plan, op: Embed) -> dict[str, object]:
    return {"index": op.index, "first": op.first, "num_ids": plan.num_token_ids}


_INPUTS = (
    *("x", "q", "k", "v", "logits", "gate", "up", "a", "b", "step", "beta"),
    *("base", "coefficients", "like"),
)


def _uses(plan: Plan) -> Mapping[int, list[int]]:
    """Value id -> indices of the ops that read it."""
    uses: dict[int, list[int]] = defaultdict(list)
    for index, op in enumerate(plan.ops):
        for name in _INPUTS:
            value = getattr(op, name, None)
            if isinstance(value, Piece):
                value = value.x
            if isinstance(value, Value):
                uses[value.id].append(index)
        several = op.pieces if isinstance(op, Columns) else op.terms if isinstance(op, WeightedSum) else ()
        for value in dict.fromkeys(item.x if isinstance(item, Piece) else item for item in several):
            uses[value.id].append(index)
    return uses

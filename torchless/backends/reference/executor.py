"""Walks a plan op by op with NumPy. Keys and values live in pages, exactly as given (kv_type is ignored)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.backends.base import PAGE_TOKENS, Batch, Best, ExecutorOptions, Progress, StepInterruptedError
from torchless.backends.chains import step_chain
from torchless.backends.reference import ops
from torchless.backends.reference.checks import check_batch, check_slots
from torchless.backends.reference.contents import Contents
from torchless.backends.reference.ops import Array
from torchless.backends.reference.page_content import page_bytes, store_tokens
from torchless.backends.reference.states import StateSlots, state_bytes
from torchless.backends.trees import is_tree, path_to, run_parents
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
    WeightedSum,
)
from torchless.weights.source import WeightSource

__all__ = ["ReferenceExecutor", "compile", "required_bytes"]


def compile(
    plan: Plan, source: WeightSource, options: ExecutorOptions, progress: Progress | None = None
) -> ReferenceExecutor:
    """See `backends.base.Backend.compile`."""
    return ReferenceExecutor(plan, source, options, progress)


def required_bytes(plan: Plan, source: WeightSource, options: ExecutorOptions) -> dict[str, int]:
    """See `backends.base.Backend.required_bytes`. Everything is float64; values of a step are never reused."""
    if options.fast:
        raise UnsupportedError(
            "fast: the reference backend computes exactly; use the cpu backend, or leave it out"
        )
    rows = {"tokens": options.max_batch_tokens, "outputs": options.max_outputs}
    return {
        "weights": sum(8 * int(np.prod(source.tensors[name].shape)) for name in plan.weight_names),
        "scratch": sum(8 * rows[op.out.rows] * op.out.width for op in plan.ops),
        "kv": options.num_pages * page_bytes(plan),
        **({"state": options.num_states * state_bytes(plan)} if plan.state_ops else {}),
    }


class ReferenceExecutor(Contents):
    """An `Executor` in float64. See `backends.base.Executor`.

    Attributes:
        observe_input: called with the weight's name and the input rows (n, in) of every linear layer that runs.
    """

    def __init__(
        self, plan: Plan, source: WeightSource, options: ExecutorOptions, progress: Progress | None = None
    ) -> None:
        if plan.output is None:
            raise ValueError("the plan has no output")
        self.plan = plan
        self.options = options
        self.output = plan.output
        self.vocab_size = plan.num_token_ids
        self.output_width = plan.output.width
        self.needs_whole_sequences = plan.needs_whole_sequences
        self.observe_input: Callable[[str, Array], None] | None = None
        total = sum(source.tensors[name].num_bytes for name in plan.weight_names)
        done = 0
        self.weights: dict[str, Array] = {}
        for name in plan.weight_names:
            if progress is not None:
                progress(done, total)
            info = source.tensors[name]
            values = quants.by_name(info.type).decode(source.raw(name))
            self.weights[name] = values.astype(np.float64).reshape(info.shape)
            done += info.num_bytes
        # (layer, page) -> keys and values, each (PAGE_TOKENS, kv_heads, head_dim); made when first written.
        self.pages: dict[tuple[int, int], tuple[Array, Array]] = {}
        self.states = StateSlots(plan, options.num_state_slots)
        self.num_state_slots = self.states.num_slots
        self._is_interrupted = False

    def step(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Runs one step; returns logits (m, vocab)."""
        check_batch(batch, self.plan, self.options)
        self.states.begin(batch)
        values: dict[int, Array] = {}
        for op in self.plan.ops:
            if self._is_interrupted:
                raise StepInterruptedError
            values[op.out.id] = self._run(op, batch, values)
        self.states.end(batch)
        return values[self.output.id].astype(np.float32)

    def max_best(self, num_outputs: int) -> int:
        """All of them."""
        return self.output_width

    def step_best(self, batch: Batch, count: int) -> Best:
        """Runs one step; returns the `count` largest logits of each row, found by sorting."""
        if not 1 <= count <= self.output_width:
            raise ValueError(f"the best {count} of {self.output_width} logits")
        logits = self.step(batch)
        order = np.where(np.isnan(logits), -np.inf, -logits).argsort(axis=1, kind="stable")[:, :count]
        return Best(order.astype(np.int32), np.take_along_axis(logits, order, axis=1))

    def step_chain(self, batch: Batch, count: int, num_steps: int) -> Best:
        """See `backends.base.Executor`."""
        return step_chain(self, batch, count, num_steps)

    def set_interrupted(self, is_interrupted: bool) -> None:
        """See `backends.base.Executor`."""
        self._is_interrupted = is_interrupted

    def release_pages(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Forgets what these pages hold."""
        gone = set(page_ids.tolist())
        self.pages = {key: value for key, value in self.pages.items() if key[1] not in gone}

    def copy_slots(
        self,
        page_ids: npt.NDArray[np.int32],
        from_slots: npt.NDArray[np.int32],
        to_slots: npt.NDArray[np.int32],
    ) -> None:
        """See `backends.base.Executor`."""
        check_slots(page_ids, from_slots, to_slots, self.options.num_pages)
        for op in self.plan.cache_ops:
            for source, target in zip(from_slots.tolist(), to_slots.tolist(), strict=True):
                from_key, to_key = (
                    (op.layer, int(page_ids[slot // PAGE_TOKENS])) for slot in (source, target)
                )
                from_page = self.pages[from_key]
                if to_key not in self.pages:
                    self.pages[to_key] = np.zeros_like(from_page[0]), np.zeros_like(from_page[1])
                to_page = self.pages[to_key]
                for i in range(2):
                    to_page[i][target % PAGE_TOKENS] = from_page[i][source % PAGE_TOKENS]

    def memory_bytes(self) -> dict[str, int]:
        """Bytes by purpose."""
        return {
            "weights": sum(weight.nbytes for weight in self.weights.values()),
            "scratch": 0,
            "kv_used": sum(k.nbytes + v.nbytes for k, v in self.pages.values()),
            "kv_page": page_bytes(self.plan),
            "state": self.states.num_bytes,
        }

    def close(self) -> None:
        """Frees weights, pages and states."""
        self.weights, self.pages = {}, {}
        self.states = StateSlots(self.plan, 0)

    # -- one step ---------------------------------------------------------------------------------

    def _run(self, op: Op, batch: Batch, values: dict[int, Array]) -> Array:
        if isinstance(op, Embed):
            return ops.embed(self.weights[op.weight], op.first + self._index(op, batch), op.scale)
        if isinstance(op, RmsNorm):
            norm = None if op.weight is None else self.weights[op.weight]
            return ops.rms_norm(values[op.x.id], norm, op.eps, op.num_heads)
        if isinstance(op, LayerNorm):
            bias = None if op.bias is None else self.weights[op.bias]
            return ops.layer_norm(values[op.x.id], self.weights[op.weight], bias, op.eps)
        if isinstance(op, Linear):
            if self.observe_input is not None and (op.rows is None or op.rows[0] == 0):  # once a tensor
                self.observe_input(op.weight, values[op.x.id])
            rows = slice(*(op.rows or (None,)))
            bias = None if op.bias is None else self.weights[op.bias][rows]
            weight = self.weights[op.weight]
            return ops.linear(values[op.x.id], weight if op.rows is None else weight[rows], bias)
        if isinstance(op, HeadsLinear):
            return ops.heads_linear(values[op.x.id], self.weights[op.head_weights])
        if isinstance(op, Columns):
            pieces = [
                values[p.x.id][:, p.start + i * p.stride :][:, : p.width]
                for i in range(op.count)
                for p in op.pieces
            ]
            return np.concatenate(pieces, axis=1)
        if isinstance(op, Rope):
            return ops.rope(values[op.x.id], batch.positions, op.num_heads, op.head_dim, op.spec)
        if isinstance(op, Attention):
            return self._attention(op, batch, values)
        if isinstance(op, Map):
            return ops.map_values(values[op.x.id], op.function, op.parameter)
        if isinstance(op, Glu):
            if isinstance(op.up, Piece):
                up = values[op.up.x.id][:, op.up.start :][:, : op.up.width]
            else:
                up = values[op.up.id]
            return ops.glu(values[op.gate.id], up, op.activation)
        if isinstance(op, Experts):
            return self._experts(op, values[op.x.id], values[op.logits.id])
        if isinstance(op, GateRows):
            return values[op.x.id] * ops.sigmoid(values[op.gate.id])
        if isinstance(op, WeightedSum):
            factors = values[op.coefficients.id][:, op.first :]
            return ops.weighted_sum(values[op.base.id], [values[term.id] for term in op.terms], factors)
        if isinstance(op, MatchMagnitude):
            return ops.match_magnitude(values[op.x.id], values[op.like.id], op.floor)
        if isinstance(op, KeepAbove):
            return ops.keep_above(values[op.x.id], op.deviations)
        if isinstance(op, ScaleColumns):
            return values[op.x.id] * self.weights[op.weight]
        if isinstance(op, CausalConv):
            return self.states.causal_conv(op, batch, values[op.x.id], self.weights[op.weight])
        if isinstance(op, GatedDelta):
            weights = self.weights[op.decay], self.weights[op.step_bias]
            return self.states.gated_delta(op, batch, values, *weights)
        if isinstance(op, Add):
            return values[op.a.id] + values[op.b.id]
        if isinstance(op, SelectOutputs):
            return values[op.x.id][batch.output_rows]
        raise UnsupportedError(f"the reference backend has no op {type(op).__name__}")

    def _index(self, op: Embed, batch: Batch) -> npt.NDArray[np.int32]:
        if op.index == "position":
            return batch.positions
        ids, num_ids = batch.token_ids, self.vocab_size
        return ids % num_ids if op.index == "token" else ids // num_ids

    def _experts(self, op: Experts, x: Array, logits: Array) -> Array:
        """Each expert's tokens together."""
        bias = None if op.selection_bias is None else self.weights[op.selection_bias]
        chosen, weights = ops.choose_experts(logits, op.routing, bias)
        if op.expert_scale is not None:
            weights = weights * self.weights[op.expert_scale][chosen]
        out = np.zeros((len(x), op.out.width))
        for expert in np.unique(chosen):
            rows, ranks = np.nonzero(chosen == expert)

            def product(x: Array, weight: str, bias: str | None, expert: np.intp = expert) -> Array:
                of_expert = None if bias is None else self.weights[bias][expert]
                return ops.linear(x, self.weights[weight][expert], of_expert)

            gate = product(x[rows], op.gate_weight, op.gate_bias)
            if op.up_weight is None:
                gate, up = np.split(gate, 2, axis=-1)
            else:
                up = product(x[rows], op.up_weight, op.up_bias)
            inner = ops.glu(gate, up, op.activation)
            out[rows] += weights[rows, ranks, None] * product(inner, op.down_weight, op.down_bias)
        return out

    def _attention(self, op: Attention, batch: Batch, values: dict[int, Array]) -> Array:
        """Each run on its own: store its keys and values, if any, in its pages, then attend over all of them."""
        q = values[op.q.id]
        out = np.empty_like(q)
        attend = partial(
            ops.attend,
            scale=op.scale,
            window=op.window,
            softcap=op.softcap,
            slopes=op.slopes,
            sinks=None if op.sinks is None else self.weights[op.sinks],
            causal=op.causal,
        )
        tables = pairwise(batch.page_starts.tolist())
        for run, ((begin, end), (first, last)) in enumerate(
            zip(pairwise(batch.run_starts.tolist()), tables, strict=True)
        ):
            table = batch.page_ids[first:last].tolist()
            start = int(batch.positions[begin])
            length = start + end - begin
            shape = (end - begin, op.num_kv_heads, op.head_dim)
            if op.k is not None and op.v is not None:
                k, v = (values[value.id][begin:end].reshape(shape) for value in (op.k, op.v))
                store_tokens(self.pages, op.layer, table, start, k, v)
            used = [self.pages[op.layer, page] for page in table[: -(-length // PAGE_TOKENS)]]
            keys = np.concatenate([page[0] for page in used])[:length]
            cached = np.concatenate([page[1] for page in used])[:length]
            queries = q[begin:end].reshape(end - begin, op.num_heads, op.head_dim)
            parents = run_parents(batch, run)
            if not is_tree(parents):
                out[begin:end] = attend(queries, keys, cached, start).reshape(end - begin, -1)
                continue
            for row in range(end - begin):
                slots = np.concatenate([np.arange(start), start + path_to(parents, row)])
                position = int(batch.positions[begin + row])
                out[begin + row] = attend(
                    queries[row : row + 1], keys[slots], cached[slots], position
                ).reshape(-1)
        return out

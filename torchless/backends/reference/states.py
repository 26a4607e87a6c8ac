"""Recurrent state of sequences on the reference backend, and the ops that keep it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Batch, check_state_slots
from torchless.backends.reference import ops
from torchless.backends.reference.ops import Array
from torchless.plan import CausalConv, GatedDelta, Piece, Plan

__all__ = ["StateSlots", "state_bytes"]


def state_bytes(plan: Plan) -> int:
    """Bytes of one slot."""
    return sum(8 * int(np.prod(_shape(plan, op))) for op in plan.state_ops)


def _shape(plan: Plan, op: CausalConv | GatedDelta) -> tuple[int, ...]:
    if isinstance(op, CausalConv):
        width, taps = plan.shapes[op.weight]
        return taps - 1, width
    return op.num_heads, op.key_dim, op.value_dim


class StateSlots:
    """The states of the sequences that are under way, each in its slot.

    Attributes:
        num_slots: 0 for a plan without state.
    """

    def __init__(self, plan: Plan, num_slots: int) -> None:
        self.num_slots = num_slots if plan.state_ops else 0
        self._shapes = [_shape(plan, op) for op in plan.state_ops]
        self._states: dict[tuple[int, int], Array] = {}  # (state, slot); made when first used
        self._positions = [-1] * self.num_slots  # the next of each slot's sequence; -1: unknown

    @property
    def num_bytes(self) -> int:
        """Bytes of all states that were used."""
        return sum(state.nbytes for state in self._states.values())

    def begin(self, batch: Batch) -> None:
        """Checks the batch; its sequences' states are in doubt until `end`. Raises ValueError."""
        check_state_slots(batch, self._positions)
        self._mark(batch, ends=False)

    def end(self, batch: Batch) -> None:
        """Notes how far the sequences came."""
        self._mark(batch, ends=True)

    def read(self, slot: int) -> npt.NDArray[np.uint8]:
        """All states of a slot as bytes. Raises ValueError."""
        self._check(slot)
        states = [self._states[i, slot].reshape(-1) for i in range(len(self._shapes))]
        return np.concatenate(states).view(np.uint8)

    def write(self, slot: int, content: npt.NDArray[np.uint8], position: int) -> None:
        """Puts back what `read` returned. Raises ValueError."""
        self._check(slot)
        values, sizes = np.frombuffer(content.tobytes(), np.float64), [int(np.prod(s)) for s in self._shapes]
        if len(values) != sum(sizes):
            raise ValueError(f"{len(content)} bytes for states of {8 * sum(sizes)}")
        for i, part in enumerate(np.split(values, np.cumsum(sizes)[:-1])):
            self._states[i, slot] = part.reshape(self._shapes[i]).copy()
        self._positions[slot] = position

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"state slot {slot} is out of range: there are {self.num_slots}")

    def _mark(self, batch: Batch, *, ends: bool) -> None:
        for slot, _, rows in self._runs(batch):
            self._positions[slot] = int(batch.positions[rows][-1]) + 1 if ends else -1

    def _runs(self, batch: Batch) -> Iterator[tuple[int, bool, slice]]:
        """Slot, whether it starts a sequence, and rows of each run."""
        if self.num_slots:
            for slot, (begin, end) in zip(
                batch.state_slots.tolist(), pairwise(batch.run_starts.tolist()), strict=True
            ):
                yield slot, int(batch.positions[begin]) == 0, slice(begin, end)

    def _before(self, state: int, slot: int, *, is_start: bool) -> Array:
        return np.zeros(self._shapes[state]) if is_start else self._states[state, slot]

    def causal_conv(self, op: CausalConv, batch: Batch, x: Array, weight: Array) -> Array:
        """Each run behind the rows before it."""
        out = np.empty_like(x)
        for slot, is_start, rows in self._runs(batch):
            history = self._before(op.state, slot, is_start=is_start)
            out[rows], self._states[op.state, slot] = ops.causal_conv(x[rows], history, weight)
        return out

    def gated_delta(
        self, op: GatedDelta, batch: Batch, values: dict[int, Array], decay: Array, step_bias: Array
    ) -> Array:
        """Each run from the state before it."""
        x, keys = values[op.x.id], op.num_key_heads * op.key_dim
        heads = np.arange(op.num_heads)
        served = heads % op.num_key_heads if op.is_tiled else heads // (op.num_heads // op.num_key_heads)
        q = x[:, :keys].reshape(len(x), op.num_key_heads, op.key_dim)[:, served]
        k = x[:, keys : 2 * keys].reshape(len(x), op.num_key_heads, op.key_dim)[:, served]
        v = x[:, 2 * keys :].reshape(len(x), op.num_heads, op.value_dim)
        factors = np.exp(decay * np.logaddexp(_columns(op.step, values, op.num_heads) + step_bias, 0.0))
        beta = ops.sigmoid(_columns(op.beta, values, op.num_heads))
        out = np.empty((len(x), op.out.width))
        for slot, is_start, rows in self._runs(batch):
            state = self._before(op.state, slot, is_start=is_start)
            mixed, state = ops.gated_delta(q[rows], k[rows], v[rows], factors[rows], beta[rows], state)
            out[rows], self._states[op.state, slot] = mixed.reshape(len(mixed), -1), state
        return out


def _columns(piece: Piece, values: dict[int, Array], count: int) -> Array:
    """`count` columns: the piece, repeated."""
    index = np.arange(count)
    return values[piece.x.id][:, piece.start + index // piece.width * piece.stride + index % piece.width]

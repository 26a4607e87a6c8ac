"""Does a model fit? Memory is counted before it is taken; a context is chosen, or the ways out are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torchless.activation_types import ActivationType
from torchless.backends.base import PAGE_TOKENS, Backend, ExecutorOptions, KvType
from torchless.errors import OutOfMemoryError
from torchless.lazy_weights import LazyWeights
from torchless.memory import Available, available_memory, format_bytes
from torchless.plan import Plan
from torchless.weights.source import WeightSource

__all__ = ["Fitted", "fit"]

AUTO_CONTEXT_TOKENS = 4096  # what "auto" takes at most: long enough for a talk, cheap for every model
SHORTEST_AUTO_CONTEXT_TOKENS = 512  # "auto" does not go below: a model that fits only so is out of memory
MAX_LOGITS_BYTES = 32 << 20  # output rows of one step, see `_max_outputs`
FEWEST_OUTPUTS = 8  # sequences that can decode together whatever the vocabulary
SLOTS_PER_CONTEXT = (
    2  # sequences that run at once share the pages of a context: room for two states beside each
)
MOST_PACKED = (
    0.8  # of the available memory, by a lazy model that is larger: the rest is for pages of the file
)
PARALLEL_CONTEXTS = 8  # full contexts that the pages hold at most, where memory is plenty


class Fitted(NamedTuple):
    """What was chosen."""

    context_length: int
    options: ExecutorOptions


def fit(
    backend: Backend,
    plan: Plan,
    source: WeightSource,
    *,
    ctx: int | None,
    trained_context_length: int,
    batch_tokens: int,
    num_threads: int,
    kv: KvType,
    cpus: tuple[int, ...] = (),
    activations: ActivationType = "int8",
    fast: bool = False,
    lazy: LazyWeights = "off",
    memory: int | None = None,
    measure: Callable[[], Available | None] = available_memory,
) -> Fitted:
    """Chooses context length and executor options that fit into memory.

    One context always fits. Where memory is plenty the cache gets pages for several, so that many
    sequences can run at once; pages take memory only while they are used.

    Of a lazy model as many weights are packed all the same as `memory` holds. Without it none are if all would fit,
    since the system's cache of file pages serves them then; else as many as leave that cache some room.

    Args:
        ctx: wanted context, or None for ours.
        lazy: which weights may stay in the file.
        memory: bytes that all may take together, if that is less than there is.
        measure: says how much memory is available.

    Raises:
        OutOfMemoryError: it does not fit; the message has the numbers and the cheapest ways out.
    """
    demand = _Demand(backend, plan, source, batch_tokens, num_threads, kv, cpus, activations, fast, lazy)
    most = ctx or min(trained_context_length, AUTO_CONTEXT_TOKENS)
    available = measure()
    if memory is not None and (available is None or memory < available.num_bytes):
        available = Available(memory, "the given memory")
    if available is None:
        return Fitted(most, demand.options(most))
    least = most if ctx is not None else min(most, SHORTEST_AUTO_CONTEXT_TOKENS)
    chosen = demand.largest_context(available.num_bytes, least, most)
    if chosen is None:
        raise OutOfMemoryError(_explain(demand, least, available))
    num_contexts = PARALLEL_CONTEXTS
    while num_contexts > 1 and demand.total_loaded(chosen, num_contexts) > available.num_bytes // 2:
        num_contexts //= 2
    options = demand.options(chosen, num_contexts)
    if lazy == "off":
        return Fitted(chosen, options)
    room = _room_for_weights(demand, options, available.num_bytes, memory is not None)
    return Fitted(chosen, replace(options, packed_bytes=room))


def _room_for_weights(demand: _Demand, options: ExecutorOptions, num_bytes: int, is_given: bool) -> int:
    """Bytes of weights to pack of a lazy model."""
    if not is_given:
        if demand.total(replace(options, packed_bytes=None)) <= num_bytes:
            return 0
        num_bytes = int(num_bytes * MOST_PACKED)
    return max(0, num_bytes - demand.total(options))


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a backend takes for a model, as a function of the context."""

    backend: Backend
    plan: Plan
    source: WeightSource
    batch_tokens: int
    num_threads: int
    kv: KvType
    cpus: tuple[int, ...]
    activations: ActivationType
    fast: bool
    lazy: LazyWeights = "off"

    def options(self, context_length: int, num_contexts: int = 1) -> ExecutorOptions:
        """Options for a cache of so many contexts."""
        num_pages = num_contexts * -(-context_length // PAGE_TOKENS)
        rows = min(self.batch_tokens, num_pages * PAGE_TOKENS)
        width = self.plan.output.width if self.plan.output is not None else 1
        num_outputs = _max_outputs(width, rows)
        if self.plan.needs_whole_sequences:  # and one may want all its rows
            num_outputs = rows = max(rows, context_length)
        num_slots = min(SLOTS_PER_CONTEXT * num_contexts, num_outputs)
        return ExecutorOptions(
            *(num_pages, rows, num_outputs, self.num_threads, self.kv, self.cpus),
            num_state_slots=num_slots,
            num_kept_states=num_slots,
            activations=self.activations,
            fast=self.fast,
            lazy=self.lazy,
        )

    def purposes(self, options: ExecutorOptions) -> dict[str, int]:
        """Bytes by purpose."""
        return self.backend.required_bytes(self.plan, self.source, options)

    def total(self, options: ExecutorOptions) -> int:
        """Bytes in all."""
        return sum(self.purposes(options).values())

    def total_loaded(self, context_length: int, num_contexts: int) -> int:
        """Bytes in all if no weights stay in the file."""
        return self.total(replace(self.options(context_length, num_contexts), packed_bytes=None))

    def largest_context(self, num_bytes: int, least: int, most: int) -> int | None:
        """The largest context in ``least .. most`` that fits, in whole pages; None when `least` does not."""

        def fits(context_length: int) -> bool:
            return self.total(self.options(context_length)) <= num_bytes

        if fits(most):
            return most
        if not fits(least):
            return None
        low, high = least // PAGE_TOKENS, most // PAGE_TOKENS + 1  # in pages: low fits, high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle * PAGE_TOKENS) else (low, middle)
        return max(low * PAGE_TOKENS, least)


def _max_outputs(width: int, max_batch_tokens: int) -> int:
    """Logits rows in a step: as many as a fixed amount of memory holds, and not fewer than a few."""
    rows = MAX_LOGITS_BYTES // (4 * width)
    return min(max(rows, FEWEST_OUTPUTS), max_batch_tokens)


def _explain(demand: _Demand, context_length: int, available: Available) -> str:
    """The message of an `OutOfMemoryError`: what is needed for what, what there is, and three ways out."""
    options = demand.options(context_length)
    purposes = demand.purposes(options)
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in purposes.items())
    ways = _ways_out(demand, context_length, available)[:3]
    numbered = "; ".join(f"({i}) {way}" for i, way in enumerate(ways, 1))
    return (
        f"{demand.source.path} needs {format_bytes(sum(purposes.values()))} with a context of "
        f"{context_length} tokens ({parts}), but {format_bytes(available.num_bytes)} are available "
        f"({available.limit}). Nothing was allocated. Ways out: {numbered}"
    )


def _ways_out(demand: _Demand, context_length: int, available: Available) -> list[str]:
    """What would help, cheapest first."""
    options = demand.options(context_length)

    def outcome(changed: ExecutorOptions) -> str:
        size = demand.total(changed)
        return f"{format_bytes(size)}, {'fits' if size <= available.num_bytes else 'not enough alone'}"

    ways = []
    smaller = demand.largest_context(available.num_bytes, min(PAGE_TOKENS, context_length), context_length)
    if smaller is not None:
        ways.append(f"a smaller context: ctx={smaller} fits")
    if options.kv_type == "f32":
        ways.append(f'half the cache: kv="f16" ({outcome(replace(options, kv_type="f16"))})')
    elif options.kv_type in ("f16", "bf16"):
        half = replace(options, kv_type="q8_0")
        if demand.total(half) <= available.num_bytes:
            ways.append(f'about half the cache: kv="q8_0" ({outcome(half)})')
    fewer = replace(
        options, max_batch_tokens=min(options.max_batch_tokens, 64), max_outputs=min(options.max_outputs, 64)
    )
    if demand.total(fewer) < demand.total(options):
        ways.append(f"smaller steps: batch_tokens=64 ({outcome(fewer)})")
    weights = format_bytes(demand.purposes(options).get("weights", 0))
    ways.append(f"a smaller quantisation of the model (its weights take {weights})")
    from_file = replace(options, lazy="all")
    if demand.total(from_file) <= available.num_bytes and demand.total(from_file) < demand.total(options):
        ways.append(f"weights that stay in the file: lazy=True ({outcome(from_file)}; slow)")
    ways.append(f"more memory ({available.limit} is what binds)")
    return ways

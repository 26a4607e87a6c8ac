"""Which recipe, cache type and context to take for an amount of memory, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torchless.memory import format_bytes
from torchless.planning.findings import AS_IT_IS, Choice

if TYPE_CHECKING:
    from torchless.planning.findings import RecipeForecast

__all__ = ["GOOD_BITS", "GOOD_ERROR", "UNNOTICED_ERROR", "choose"]

UNNOTICED_ERROR = 0.01
"""Relative error of the weights below which nothing is noticed: among such recipes the fastest is best."""
GOOD_ERROR, GOOD_BITS = 0.08, 4.7
"""A bit more than Q4_0 does to weights, and the bits that stand for it where errors were not measured: worse recipes
are taken only when a smaller cache and a shorter context do not help."""

_LEAST_CONTEXT = 512

BytesOf = Callable[[str, int, str], Mapping[str, int]]


def choose(
    bytes_of: BytesOf,
    rows: Sequence[RecipeForecast],
    context_length: int,
    kv_type: str,
    memory_bytes: int | None,
    *,
    fixed: bool,
) -> tuple[Choice | None, str]:
    """The best that fits, and a sentence or two on it.

    Good recipes are tried first: with the wanted context and cache, then with a cache in q8_0, then with half the
    context, and so on. Only then come recipes that cost more quality. Among those that fit the one with the least
    error is taken; below `UNNOTICED_ERROR`, the fastest.

    Args:
        bytes_of: (recipe, context length, cache type) -> bytes by purpose.
        rows: forecasts.
        fixed: whether the context must stay as it is.
    """
    if memory_bytes is None:
        return None, "This system does not say how much memory is left; give an amount (--memory 8GiB)."

    def total(row: RecipeForecast, context: int, kv: str) -> int:
        return sum(bytes_of(row.recipe, context, kv).values()) + row.process_bytes

    for is_good in (True, False):
        for context, kv in _settings(context_length, kv_type, fixed=fixed):
            fitting = [
                row
                for row in rows
                if _is_good(row) in (is_good, True) and total(row, context, kv) <= memory_bytes
            ]
            if fitting:
                best = max(fitting, key=_rank)
                choice = Choice(best.recipe, kv, context, total(best, context, kv))
                return choice, _reason(choice, best, rows, context_length, kv_type, memory_bytes, total)
    context, kv = _last(context_length, kv_type, fixed)
    least = min(rows, key=lambda row: total(row, context, kv))
    return None, (
        f"Nothing fits into {format_bytes(memory_bytes)}: even {_name(least)} with a cache of {context} tokens needs "
        f"{format_bytes(total(least, context, kv))}. Take a smaller model, or give it more memory."
    )


def _settings(context_length: int, kv_type: str, *, fixed: bool) -> Iterator[tuple[int, str]]:
    """(context, cache type), most wanted first."""
    kinds = list(dict.fromkeys([kv_type, *(["q8_0"] if kv_type in ("f16", "bf16", "f32") else [])]))
    context = context_length
    while True:
        yield from ((context, kind) for kind in kinds)
        if fixed or context // 2 < _LEAST_CONTEXT:
            return
        context //= 2


def _last(context_length: int, kv_type: str, fixed: bool) -> tuple[int, str]:
    return list(_settings(context_length, kv_type, fixed=fixed))[-1]


def _is_good(row: RecipeForecast) -> bool:
    return row.bits_per_weight >= GOOD_BITS if row.error is None else row.error <= GOOD_ERROR


def _rank(row: RecipeForecast) -> tuple[float, float]:
    """Larger is better."""
    error = 2.0**-row.bits_per_weight if row.error is None else row.error
    return -max(error, UNNOTICED_ERROR), row.decode_tokens_per_second


def _name(row: RecipeForecast) -> str:
    return f"the model {AS_IT_IS}" if row.recipe == AS_IT_IS else row.recipe


def _reason(
    choice: Choice,
    best: RecipeForecast,
    rows: Sequence[RecipeForecast],
    context_length: int,
    kv_type: str,
    memory_bytes: int,
    total: Callable[[RecipeForecast, int, str], int],
) -> str:
    """Why this one: what it takes of what there is, what better ones would take, what was given up for it."""
    error = "" if best.error is None else f", {best.error:.1%} error in the weights"
    text = (
        f"Take {_name(best)} with a context of {choice.context_length} tokens in {choice.kv_type}: it needs "
        f"{format_bytes(choice.total_bytes)} of {format_bytes(memory_bytes)} and decodes about "
        f"{best.decode_tokens_per_second:.3g} tok/s{error}."
    )
    better = [row for row in rows if _rank(row)[0] > _rank(best)[0]]
    if better:
        nearest = min(better, key=lambda row: total(row, choice.context_length, choice.kv_type))
        needed = total(nearest, choice.context_length, choice.kv_type)
        return f"{text} Of what is more exact, {_name(nearest)} takes the least: {format_bytes(needed)}."
    if choice.context_length < context_length or choice.kv_type != kv_type:
        return f"{text} With {context_length} tokens in {kv_type} it would not fit."
    if any(row.file_bytes > best.file_bytes for row in rows):
        return f"{text} Larger ones would be slower, and no better that anybody could notice."
    return f"{text} Nothing is more exact."

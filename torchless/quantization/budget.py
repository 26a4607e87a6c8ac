"""Types within a number of bytes: where another byte lowers the measured error most, it is spent first.

The cost of a tensor's type is its measured relative error times how much the model's output hangs on the tensor.
Of each tensor's types only those on the lower convex hull of (bytes, cost) are worth having. Taking the steps
along all hulls in the order of gain per byte is the Lagrangian optimum at every size that it passes through.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torchless.errors import InvalidRequestError
from torchless.memory import format_bytes
from torchless.quantization.recipes import fitting_type

__all__ = ["Candidate", "choose_within", "sensitivity", "types_to_try"]

_BLOCK_TYPES = (
    *("Q2_K", "Q3_K", "IQ3_S", "MXFP4", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K"),
    *("Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0"),
)


def types_to_try(source_type: str, row_elements: int) -> tuple[str, ...]:
    """What a tensor may become, smallest first: every block type that torchless quantises to and one of 16 bits, F16
    for weights that are F16 and BF16 for others. Their errors are measured; their speed counts for nothing.

    Of types that take as much and err as much, the first is taken. Types whose blocks do not fill a row are replaced.

    >>> types_to_try("F32", 256)[-2:], types_to_try("F16", 7)
    (('Q8_0', 'BF16'), ('F16',))
    """
    plain = "F16" if source_type == "F16" else "BF16"
    fitting = (fitting_type(name, row_elements) for name in _BLOCK_TYPES)
    return tuple(dict.fromkeys([*(plain if name == "F16" else name for name in fitting), plain]))


_SENSITIVITIES = (
    (re.compile(r"output\.weight"), 4.0),
    (re.compile(r"token_embd\.weight"), 1.0),
    (re.compile(r".*\.(attn_v|attn_qkv)\.weight"), 2.0),
    (re.compile(r".*\.(attn_output|ffn_down).*\.weight"), 1.5),
    (re.compile(r".*\.(attn_q|attn_k)\.weight"), 0.5),
)


def sensitivity(name: str, *, tied: bool) -> float:
    """How much a relative error of this tensor changes the model's output, roughly: 1 for most.

    Errors of the output projection reach the logits undamped, those of values and of the projections back
    into the residual stream are not corrected by a soft maximum or a gate; those of queries and keys are.
    """
    if tied and name == "token_embd.weight":
        name = "output.weight"
    return next((factor for pattern, factor in _SENSITIVITIES if pattern.fullmatch(name)), 1.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A type that a tensor may get: its bytes, and its cost (sensitivity x measured error)."""

    type_name: str
    num_bytes: int
    cost: float


def choose_within(
    candidates: Mapping[str, Sequence[Candidate]],
    num_bytes: int,
    describe: Callable[[int], str] = format_bytes,
) -> dict[str, str]:
    """The type of each tensor such that all together take at most `num_bytes`.

    Raises:
        InvalidRequestError: even the smallest types take more; says how much.
    """
    hulls = {name: _hull(options) for name, options in candidates.items()}
    position = dict.fromkeys(hulls, 0)
    total = sum(hull[0].num_bytes for hull in hulls.values())
    if total > num_bytes:
        left = f"leaves {describe(num_bytes)}" if num_bytes >= 0 else "leaves nothing"
        raise InvalidRequestError(
            f"the target {left} for the matrices; in their smallest types they take {describe(total)}: choose a "
            f"target that is larger by {describe(total - num_bytes)}"
        )
    steps = [(-_slope(hull[0], hull[1]), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, name = heapq.heappop(steps)
        hull, at = hulls[name], position[name]
        growth = hull[at + 1].num_bytes - hull[at].num_bytes
        if total + growth > num_bytes:
            continue  # a smaller tensor may still fit
        total += growth
        position[name] = at + 1
        if at + 2 < len(hull):
            heapq.heappush(steps, (-_slope(hull[at + 1], hull[at + 2]), name))
    return {name: hull[position[name]].type_name for name, hull in hulls.items()}


def _slope(smaller: Candidate, larger: Candidate) -> float:
    """Cost saved per byte."""
    return (smaller.cost - larger.cost) / (larger.num_bytes - smaller.num_bytes)


def _hull(options: Sequence[Candidate]) -> list[Candidate]:
    """The options that are best for some price of a byte, smallest first."""
    hull: list[Candidate] = []
    for option in sorted(options, key=lambda item: (item.num_bytes, item.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], option):
            hull.pop()
        if hull and hull[-1].num_bytes == option.num_bytes:
            hull.pop()
        hull.append(option)
    return hull

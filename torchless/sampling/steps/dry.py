"""Step: "don't repeat yourself": penalises tokens that would prolong a repetition of earlier text.

p-e-w 2024 (text-generation-webui, pull request 5677). If the last L tokens occurred before, the token that followed
there loses multiplier * base^(L - allowed_length), for the longest such L of at least allowed_length. Sequence breakers
are strings, such as a line's end, which no repetition reaches across, so that names and formats may come again.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "dry"

_LARGEST_EXPONENT = 80.0  # of e: beyond it the token is as good as forbidden


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when the multiplier is 0, no token counts, or the base penalises nothing."""
    if params.dry_multiplier == 0.0 or params.dry_penalty_last_n == 0 or params.dry_base < 1:
        return None
    window, allowed = params.dry_penalty_last_n, params.dry_allowed_length
    multiplier, log_base = params.dry_multiplier, math.log(params.dry_base)
    breakers, token_text = params.dry_sequence_breakers, context.token_text

    @cache
    def breaks(token_id: int) -> bool:
        text = token_text(token_id) if token_text is not None else ""
        return any(breaker in text for breaker in breakers)

    def penalise(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        recent = history if window < 0 else history[-window:]
        longest = next((i for i, token in enumerate(recent[::-1].tolist()) if breaks(token)), len(recent))
        if longest < allowed or len(recent) <= allowed:
            return
        lengths = _repetitions(recent, longest)
        penalised = {
            int(recent[end + 1]): length for end, length in sorted(lengths.items(), key=lambda item: item[1])
        }
        chosen = {token: length for token, length in penalised.items() if length >= allowed}
        if not chosen:
            return
        indices = candidates.indices_of(np.array(list(chosen), dtype=np.intp))
        exponents = np.minimum((np.array(list(chosen.values())) - allowed) * log_base, _LARGEST_EXPONENT)
        present = indices >= 0
        logits = candidates.writable_logits()
        logits[indices[present]] -= (multiplier * np.exp(exponents))[present]
        candidates.is_sorted = False

    return penalise


def _repetitions(recent: npt.NDArray[np.int32], longest: int) -> dict[int, int]:
    """For each earlier place that ends like `recent` does: how many tokens agree, at most `longest`."""
    last = len(recent) - 1
    ends = (recent[:last] == recent[last]).nonzero()[0]
    lengths = dict.fromkeys(ends.tolist(), 1)
    length = 1
    while len(ends) and length < longest:
        ends = ends[ends >= length]
        ends = ends[recent[ends - length] == recent[last - length]]
        length += 1
        lengths.update(dict.fromkeys(ends.tolist(), length))
    return lengths

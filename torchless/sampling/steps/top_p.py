"""Step: keeps the most likely tokens that together reach probability p (nucleus; Holtzman et al. 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step, largest, weights
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "top_p"

_FIRST_GUESS = 256  # tokens; a nucleus is rarely larger, and the guess grows eightfold where it is


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when p is 1, and when the best token is taken anyway."""
    if params.top_p == 1.0 or params.temperature == 0:
        return None
    top_p = params.top_p

    def keep_nucleus(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        if candidates.is_sorted:
            sums = _weights(candidates.logits, candidates.peak).cumsum()
            candidates.keep_first(int(sums.searchsorted(top_p * sums[-1])) + 1)
            return
        logits = candidates.logits
        peak = candidates.peak
        wanted = top_p * float(weights(logits, peak).sum(dtype=np.float64))
        guess = _FIRST_GUESS
        while True:
            indices = largest(logits, guess)
            sums = _weights(logits[indices], peak).cumsum()
            if sums[-1] >= wanted or len(indices) == len(logits):
                break
            guess *= 8
        candidates.keep(indices)
        candidates.is_sorted = True
        candidates.keep_first(int(sums.searchsorted(wanted)) + 1)

    return keep_nucleus


def _weights(logits: npt.NDArray[np.floating[Any]], peak: np.floating[Any]) -> npt.NDArray[np.float64]:
    """Unnormalised probabilities, 1 for the most likely token."""
    weights: npt.NDArray[np.float64] = np.exp(np.subtract(logits, peak, dtype=np.float64))
    return weights

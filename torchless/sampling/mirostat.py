"""Mirostat: picks so that the surprise of the text stays near a wanted one (Basu et al. 2021).

Its state is the bound on surprise, mu, which every pick moves. It is kept by position, so that a token that is picked
anew, after going back, is picked from the same state.
"""

from __future__ import annotations

import math

import numpy as np

from torchless.sampling.candidates import Candidates
from torchless.sampling.parameters import SamplingParams

__all__ = ["Mirostat"]

_NUM_ESTIMATED = 100  # tokens from which version 1 estimates the exponent of Zipf's law


class Mirostat:
    """The last step of a chain, instead of picking at random from what is left.

    Args:
        params: `mirostat` is 1 or 2.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._version = params.mirostat
        self._wanted, self._rate = params.mirostat_tau, params.mirostat_eta
        self._bounds: dict[int, float] = {}  # by the position of the token that it is for

    def narrow(self, candidates: Candidates, position: int, vocab_size: int) -> None:
        """Leaves the tokens that may be picked at this position, at least one, sorted."""
        bound = self._bounds.setdefault(position, 2 * self._wanted)
        candidates.keep_largest(len(candidates))
        p = candidates.probabilities()
        if self._version == 1:
            candidates.keep_first(max(_zipf_count(p, bound, vocab_size), 1))
        else:
            with np.errstate(divide="ignore"):
                unsurprising = -np.log2(p) <= bound
            candidates.keep_first(max(int(np.count_nonzero(unsurprising)), 1))

    def accept(self, probability: float, position: int) -> None:
        """Moves the bound by how surprising the picked token was among those that were left."""
        surprise = -math.log2(probability) if probability > 0 else math.inf
        moved = self._bounds[position] - self._rate * (min(surprise, 1e3) - self._wanted)
        self._bounds[position + 1] = moved
        self._bounds.pop(position - 4096, None)


def _zipf_count(p: np.ndarray, bound: float, vocab_size: int) -> int:
    """How many of the likeliest tokens have that surprise, if ranks follow Zipf's law (version 1)."""
    first = p[: min(_NUM_ESTIMATED, len(p))]
    first = first[first > 0]
    if len(first) < 2:
        return 1
    ranks = np.arange(1, len(first))
    steps = np.log((ranks + 1) / ranks)
    exponent = float((steps * np.log(first[:-1] / first[1:])).sum() / (steps**2).sum())
    if exponent <= 0:  # all alike
        return len(p)
    excess = exponent - 1
    if abs(excess) < 1e-9:
        return len(p)
    base = excess * 2.0 ** min(bound, 1000.0) / (1 - vocab_size**-excess)
    return int(min(base ** (1 / exponent), len(p))) if base > 0 else 1

"""Step: keeps the k most likely tokens (Fan et al. 2018)."""

from __future__ import annotations

from collections.abc import Collection

from torchless.sampling.candidates import KeepLargest, Step
from torchless.sampling.parameters import SamplingParams

ORDER = 30


def build(params: SamplingParams, eos_ids: Collection[int]) -> Step | None:
    """None when k is 0, and when the best token is taken anyway."""
    if params.top_k == 0 or params.temperature == 0:
        return None
    return KeepLargest(params.top_k)

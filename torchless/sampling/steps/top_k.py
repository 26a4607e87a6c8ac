"""Step: keeps the k most likely tokens (Fan et al. 2018)."""

from __future__ import annotations

from torchless.sampling.candidates import KeepLargest, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "top_k"


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when k is 0, and when the best token is taken anyway."""
    if params.top_k == 0 or params.temperature == 0:
        return None
    return KeepLargest(params.top_k)

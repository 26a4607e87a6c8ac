"""Step: keeps the k most likely tokens (Fan et al. 2018)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.parameters import SamplingParams

ORDER = 30


def build(params: SamplingParams, eos_ids: Collection[int]) -> Step | None:
    """None when k is 0, and when the best token is taken anyway."""
    if params.top_k == 0 or params.temperature == 0:
        return None
    count = params.top_k

    def keep_top_k(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        candidates.keep_largest(count)

    return keep_top_k

"""Step: keeps tokens at least p times as likely as the most likely one (Nguyen et al. 2024)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "min_p"


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when p is 0, and when the best token is taken anyway."""
    if params.min_p == 0.0 or params.temperature == 0:
        return None
    margin = -math.log(params.min_p)  # probability ratio as a difference of logits

    def keep_likely(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        likely = candidates.logits >= candidates.peak - margin
        if candidates.is_sorted:
            candidates.keep_first(int(np.count_nonzero(likely)))
        else:
            candidates.keep(likely.nonzero()[0])

    return keep_likely

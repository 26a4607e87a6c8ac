"""Step: keeps tokens whose logit is within n standard deviations of the largest (Tang et al. 2024, "Top-nσ")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "top_n_sigma"


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when n is 0 or less, and when the best token is taken anyway."""
    if params.top_n_sigma <= 0 or params.temperature == 0:
        return None
    count = params.top_n_sigma

    def keep_near(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        logits = candidates.logits
        allowed = logits[np.isfinite(logits)].astype(np.float64, copy=False)
        candidates.keep_where(logits >= candidates.peak - count * allowed.std())

    return keep_near

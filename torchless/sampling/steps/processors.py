"""Step: the caller's own functions, which change the logits of all tokens in place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError
from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

ORDER = 5


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when there are none."""
    if not params.processors:
        return None
    processors = params.processors

    def process(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        logits = candidates.writable_logits()
        for processor in processors:
            processor(history, logits)
        peak = logits.max()
        if not np.isfinite(peak):
            raise InvalidRequestError(f"a processor left {peak} as the largest logit; leave a finite one")

    return process

"""Step: makes recent tokens less likely.

Repetition: Keskar et al. 2019 (CTRL, section 4.1), with the sign rule that all engines use: a positive logit is divided
by the penalty, another one multiplied, so that both fall; once however often the token occurred. Frequency and
presence (OpenAI's API): subtracted for every occurrence, and once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "penalties"

_LARGEST = float(np.finfo(np.float32).max)


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when no penalty changes anything or no token counts as recent."""
    penalty, frequency, presence = params.repeat_penalty, params.frequency_penalty, params.presence_penalty
    if (penalty == 1.0 and frequency == 0.0 and presence == 0.0) or params.repeat_last_n == 0:
        return None
    window = params.repeat_last_n

    def penalise(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        recent, counts = np.unique(history if window < 0 else history[-window:], return_counts=True)
        indices = candidates.indices_of(recent)
        present = indices >= 0
        indices, counts = indices[present], counts[present]
        logits = candidates.writable_logits()
        values = logits[indices].astype(np.float64)
        values = np.where(values > 0, np.minimum(values / penalty, _LARGEST), values * penalty)
        values -= counts * frequency + presence
        with np.errstate(over="ignore"):  # far below all others: -inf will do
            logits[indices] = values
        candidates.is_sorted = False

    return penalise

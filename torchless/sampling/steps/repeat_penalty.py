"""Step: makes recent tokens less likely.

Keskar et al. 2019 (CTRL, section 4.1), with the sign rule that all engines use: a positive logit is divided
by the penalty, another one multiplied, so that both fall. A token counts once however often it occurred.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.parameters import SamplingParams

ORDER = 20

_LARGEST = float(np.finfo(np.float32).max)


def build(params: SamplingParams, eos_ids: Collection[int]) -> Step | None:
    """None when the penalty is 1 or no token counts as recent."""
    if params.repeat_penalty == 1.0 or params.repeat_last_n == 0:
        return None
    penalty = params.repeat_penalty
    window = params.repeat_last_n

    def penalise(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        recent = history if window < 0 else history[-window:]
        logits = candidates.writable_logits()
        # Read all, then write all: a token that occurs twice gets the same value twice.
        values = logits[recent].astype(np.float64)
        values = np.where(values > 0, np.minimum(values / penalty, _LARGEST), values * penalty)
        with np.errstate(over="ignore"):  # far below all others: -inf will do
            logits[recent] = values

    return penalise

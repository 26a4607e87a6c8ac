"""Step: divides the logits by the temperature; below 1 the likely become likelier, above 1 the unlikely."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.parameters import SamplingParams

ORDER = 60

# Differences of float32 logits lie between 1e-45 and 1e39: divided by this they neither overflow nor tie,
# and below it every temperature picks the most likely token alike.
_SMALLEST = 1e-200


def build(params: SamplingParams, eos_ids: Collection[int]) -> Step | None:
    """None at 1, which changes nothing, and at 0, where the best token is taken anyway."""
    if params.temperature in (0.0, 1.0):
        return None
    temperature = max(params.temperature, _SMALLEST)

    def divide(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        candidates.logits = np.subtract(candidates.logits, candidates.peak, dtype=np.float64) / temperature

    return divide

"""Step: divides the logits by the temperature; below 1 the likely become likelier, above 1 the unlikely.

With a range, the temperature follows the entropy of the candidates: from temperature - range where one of them is
certain to temperature + range where all are alike ("dynamic temperature"; kalomaze 2023).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "temperature"

# Differences of float32 logits lie between 1e-45 and 1e39: divided by this they neither overflow nor tie,
# and below it every temperature picks the most likely token alike.
_SMALLEST = 1e-200


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None at a fixed 1, which changes nothing, and at 0, where the best token is taken anyway."""
    if params.temperature == 0.0:
        return None
    middle, spread, exponent = params.temperature, params.dynatemp_range, params.dynatemp_exponent
    if spread > 0:
        lowest, highest = max(0.0, middle - spread), middle + spread

        def divide_by_entropy(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
            if len(candidates) < 2:
                return
            p = candidates.probabilities()
            p = p[p > 0]
            share = -float((p * np.log(p)).sum()) / math.log(len(candidates))
            _divide(candidates, lowest + (highest - lowest) * min(max(share, 0.0), 1.0) ** exponent)

        return divide_by_entropy
    if middle == 1.0:
        return None
    return lambda candidates, history: _divide(candidates, middle)


def _divide(candidates: Candidates, temperature: float) -> None:
    differences = np.subtract(candidates.logits, candidates.peak, dtype=np.float64)
    differences /= max(
        temperature, _SMALLEST
    )  # in place: new memory for a vocabulary costs more than the division
    candidates.replace_logits(differences)

"""Step: keeps the tokens that are about as surprising as one expects (locally typical sampling; Meister et al. 2022).

Those whose surprise is nearest to the entropy, until they reach probability p together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "typ_p"


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when p is 1, and when the best token is taken anyway."""
    if params.typical_p == 1.0 or params.temperature == 0:
        return None
    typical_p = params.typical_p

    def keep_typical(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        p = candidates.probabilities()
        surprise = np.full(len(p), np.inf)
        np.negative(np.log(p, where=p > 0, out=surprise), where=p > 0, out=surprise)
        entropy = float((p[p > 0] * surprise[p > 0]).sum())
        order = np.abs(surprise - entropy).argsort(kind="stable")
        sums = p[order].cumsum()
        kept = int(sums.searchsorted(typical_p, side="right")) + 1
        candidates.keep(order[:kept])
        candidates.is_sorted = False

    return keep_typical

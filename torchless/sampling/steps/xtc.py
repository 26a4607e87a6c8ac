"""Step: now and then leaves out the most likely tokens ("exclude top choices"; p-e-w 2024).

With the given probability, all tokens of at least the threshold go but the least likely of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

NAME = "xtc"

_WORD = 1  # of a position's random numbers; the pick has the first


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when it never happens: two tokens cannot both have more than half."""
    if params.xtc_probability == 0.0 or params.xtc_threshold > 0.5:
        return None
    probability, threshold, random = params.xtc_probability, params.xtc_threshold, context.random

    def leave_out(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        if random.uniform(len(history), _WORD) > probability:
            return
        p = candidates.probabilities()
        (above,) = (p >= threshold).nonzero()
        if len(above) < 2:
            return
        stays = above[np.lexsort((-above, p[above]))[0]]  # the least likely, of equal ones the last
        kept = np.ones(len(p), dtype=bool)
        kept[above] = False
        kept[stays] = True
        candidates.keep_where(kept)

    return leave_out

"""Step: forbids the tokens that end a text until it has the wanted number of tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

ORDER = 15  # behind the biases, in front of the samplers


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when the text may end at once."""
    if params.min_tokens == 0 or not context.eos_ids:
        return None
    eos_ids = np.array(sorted(context.eos_ids), dtype=np.intp)
    first = context.num_prompt_tokens + params.min_tokens

    def forbid_end(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        if len(history) < first:
            logits = candidates.writable_logits()
            others = logits.copy()
            others[eos_ids] = -np.inf
            if others.max() > -np.inf:  # a constraint may leave nothing but the end
                candidates.replace_logits(others)

    return forbid_end

"""Step: adds the request's bias to single tokens; `ignore_eos` is a bias of -inf on the end tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError
from torchless.sampling.candidates import Candidates, Step
from torchless.sampling.context import SamplerContext
from torchless.sampling.parameters import SamplingParams

ORDER = 10


def build(params: SamplingParams, context: SamplerContext) -> Step | None:
    """None when nothing is biased."""
    biases = dict(params.logit_bias)
    if params.ignore_eos:
        biases.update(dict.fromkeys(context.eos_ids, -np.inf))
    if not biases:
        return None
    ids = np.array(list(biases), dtype=np.intp)
    values = np.array(list(biases.values()), dtype=np.float32)

    forbids = bool(np.isneginf(values).any())

    def add_bias(candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        logits = candidates.writable_logits()
        logits[ids] += values
        if forbids and logits.max() == -np.inf:
            raise InvalidRequestError("logit_bias or ignore_eos forbid every token; allow at least one")

    return add_bias

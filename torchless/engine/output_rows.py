"""What a step computed for its output rows, and how samplers pick from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Best
from torchless.constraints.constraint import masked
from torchless.engine.assembly import Run
from torchless.engine.sequence import Sequence

__all__ = ["OutputRows"]


class OutputRows(NamedTuple):
    """What a step computed for its output rows: all logits, or the best of each row."""

    logits: npt.NDArray[np.float32]
    best: Best | None

    def pick(self, sequence: Sequence, row: int) -> int | None:
        """The token that a sequence's sampler picks behind its history; None where that failed."""
        sampler, constraint = sequence.sampler, sequence.constraint
        assert sampler is not None
        try:
            if self.best is not None:
                return sampler.pick_best(self.best.ids[row], self.best.logits[row], sequence.history)
            logits = self.logits[row]
            if constraint is not None:
                logits = masked(logits, constraint.mask())
            return sampler.pick(logits, sequence.history)
        except Exception as error:  # of its constraint, its processors or its logits: the others go on
            sequence.failure = error
            return None

    def of(self, run: Run) -> npt.NDArray[np.float32]:
        """The rows of one run."""
        return self.logits[run.first_output : run.first_output + run.num_outputs]

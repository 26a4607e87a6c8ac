"""How many prompt tokens join a step in which others decode, so that those do not wait long for their next token.

A step lasts as long as its slowest part: whole chunks of a long prompt would stop everybody else for a second or more
at each. A few prompt tokens cost little, since the weights are read anyway. So a step with both may last `slowdown`
times as long as one that only decodes, and the prompt gets the tokens that fit into it: slower, but at nearly the
speed of a prompt alone, for the weights are read once for all.

What steps last is measured as they happen. Which tokens share a step changes no bit of any answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.engine.engine import Engine, StepResult
    from torchless.engine.sequence import Sequence

__all__ = ["DEFAULT_SLOWDOWN", "StepPacing", "slowdown"]

DEFAULT_SLOWDOWN = 2.0

_LEAST = 2  # prompt tokens a step: a prompt gets on in any case
_FIRST = 16  # as long as nothing is known
_STALE = 64  # steps with a prompt after which one without is measured again
_WEIGHT = 0.5  # of a new measurement in the averages


class StepPacing:
    """Measures steps, as an observer of the engine, and says how many prompt tokens fit.

    Args:
        slowdown: how much longer a step may last than one that only decodes the same number of sequences; above 1.

    Example:
        >>> pacing = StepPacing(slowdown=2.0)
        >>> for _ in range(3):
        ...     pacing.observe(4, 0, seconds=0.020)
        ...     pacing.observe(4, 32, seconds=0.040)
        >>> pacing.allowance(4)
        32
    """

    def __init__(self, slowdown: float = DEFAULT_SLOWDOWN) -> None:
        self.slowdown = slowdown
        self._alone: dict[int, float] = {}  # seconds of steps without a prompt, by the sequences that decode
        self._seconds_per_token = 0.0  # of prompts, in steps with both; 0 before the first
        self._num_shared = 0  # steps with both since the last without a prompt

    def allowance(self, num_decoding: int) -> int:
        """Prompt tokens that may join a step in which so many sequences decode.

        0 once in a while: then what decoding alone takes is measured again.
        """
        if self._num_shared >= _STALE or (self._num_shared and not self._alone):
            return 0
        alone = self._decoding(num_decoding)
        if not alone or not self._seconds_per_token:
            return _FIRST
        return max(round((self.slowdown - 1) * alone / self._seconds_per_token), _LEAST)

    def observe(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        """Notes what a step with decoding sequences lasted."""
        if not num_prompt_tokens:
            self._num_shared = 0
            self._alone[num_decoding] = _average(self._alone.get(num_decoding, 0.0), seconds)
            return
        self._num_shared += 1
        alone = self._decoding(num_decoding)
        if alone:
            each = max(seconds - alone, 0.0) / num_prompt_tokens
            self._seconds_per_token = _average(self._seconds_per_token, each)

    def stepped(self, engine: Engine, result: StepResult) -> None:
        """Notes a step of an engine, if sequences decoded in it. Drafts have costs of their own."""
        num_decoding = sum(run.num_tokens == 1 for run in result.runs)
        if num_decoding and all(run.draft is None for run in result.runs):
            seconds = result.times.booked - result.times.began
            self.observe(num_decoding, result.num_tokens - num_decoding, seconds)

    def added(self, engine: Engine, sequence: Sequence) -> None:
        """Nothing."""

    def cancelled(self, engine: Engine, sequence: Sequence) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def _decoding(self, num_sequences: int) -> float:
        """Seconds of a step in which so many sequences decode and nothing else; 0.0 as long as nothing is known."""
        if num_sequences in self._alone or not self._alone:
            return self._alone.get(num_sequences, 0.0)
        return self._alone[min(self._alone, key=lambda known: abs(known - num_sequences))]


def _average(average: float, measured: float) -> float:
    """A running average; one that was held up counts as twice the average."""
    return average + _WEIGHT * (min(measured, 2 * average) - average) if average else measured


def slowdown(value: Any) -> float | None:
    """The `pacing` of `torchless.load`: a number above 1; None for "off". Raises InvalidRequestError."""
    if value == "off":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 < value < math.inf:
        raise InvalidRequestError(f'pacing must be "off" or a number above 1, such as 2.0, got {value!r}')
    return float(value)

"""Log probabilities of the tokens of a text, and of what else was likely in their places.

They are those of the model: the logarithm of the softmax of its logits, in float64, before a temperature, a mask or any
other step of the chain. So they say what the model thinks, whatever the sampler makes of it, and add up over a text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.results import TokenLogprob
from torchless.sampling.candidates import largest
from torchless.text.tokenizer import Tokenizer

__all__ = ["LogprobRecorder", "log_total"]


class _Row(NamedTuple):
    """What is kept of a row of logits."""

    token_id: int
    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


class LogprobRecorder:
    """The log probabilities of one sequence's tokens, in order. Rows of logits are read as they come and not kept.

    Example:
        >>> recorder = LogprobRecorder(num_top=1)
        >>> recorder.add(np.float32([0, 0]), 1)
        >>> len(recorder), round(recorder.mean, 4)
        (1, -0.6931)
    """

    def __init__(self, num_top: int) -> None:
        """Args: num_top: how many of the likeliest tokens are noted for each place."""
        self._num_top = num_top
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def mean(self) -> float:
        """Mean log probability of all tokens; -inf where there is none."""
        return sum(row.logprob for row in self._rows) / len(self._rows) if self._rows else -math.inf

    def add(self, logits: npt.NDArray[np.float32], token_id: int) -> None:
        """Notes the token that came where the model computed these logits (vocab,)."""
        peak, total = log_total(logits)
        top = largest(logits, self._num_top) if self._num_top else np.empty(0, np.intp)
        values = logits[top].astype(np.float64) - peak - total
        logprob = float(logits[token_id]) - peak - total
        self._rows.append(_Row(token_id, logprob, top.tolist(), values.tolist()))

    def add_prompt(
        self, first: int, rows: npt.NDArray[np.float32], prompt_ids: npt.NDArray[np.int32]
    ) -> None:
        """Notes tokens of a prompt, of which entry 0 is its second token: the first follows nothing.

        Args:
            first: position of the token behind which rows[0] was computed.
            rows: (n, vocab); those of tokens that are noted already are passed over.
        """
        for position, logits in enumerate(rows, first + 1):
            if len(self._rows) + 1 == position < len(prompt_ids):
                self.add(logits, int(prompt_ids[position]))

    def truncate(self, count: int) -> None:
        """Forgets all but the first `count` tokens."""
        del self._rows[count:]

    def entries(
        self, tokenizer: Tokenizer, begin: int = 0, end: int | None = None
    ) -> tuple[TokenLogprob, ...]:
        """Tokens `begin` to `end`, with their texts."""
        found = []
        for token_id, logprob, top_ids, top_logprobs in self._rows[begin:end]:
            pairs = zip(top_ids, top_logprobs, strict=True)
            top = tuple(_named(tokenizer, other_id, value) for other_id, value in pairs)
            found.append(_named(tokenizer, token_id, logprob, top))
        return tuple(found)


def log_total(logits: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Largest logit, and logarithm of the sum of exp(logit - largest). A log probability is a logit less both."""
    peak = logits.max()
    return float(peak), math.log(float(np.exp(np.subtract(logits, peak, dtype=np.float64)).sum()))


def _named(
    tokenizer: Tokenizer, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
) -> TokenLogprob:
    is_known = token_id < tokenizer.vocab_size  # the model may have padded its vocabulary
    written = tokenizer.token_bytes(token_id, special=True) if is_known else b""
    return TokenLogprob(token_id, written.decode("utf-8", "replace"), written, logprob, top)

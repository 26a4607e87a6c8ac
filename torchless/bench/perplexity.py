"""Perplexity of a text, by llama.cpp's method and chunking, so that figures compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError

__all__ = ["PerplexityResult", "perplexity"]


@dataclass(frozen=True, slots=True)
class PerplexityResult:
    """Perplexity with its standard error.

    Attributes:
        value: exp of the mean negative log-likelihood, in nats.
        error: standard error of `value`.
        num_chunks: chunks that were scored.
        num_tokens: tokens that were scored.
    """

    value: float
    error: float
    num_chunks: int
    num_tokens: int


def perplexity(
    logits: Callable[[Sequence[int]], npt.NDArray[np.float32]],
    token_ids: Sequence[int],
    *,
    context: int = 512,
    bos_id: int | None = None,
    max_chunks: int | None = None,
) -> PerplexityResult:
    """Scores `token_ids` in chunks of `context` tokens that do not overlap.

    Only the second half of each chunk is scored, so that every scored token has at least half a context before
    it. A last, incomplete chunk is left out.

    Args:
        logits: ids (n,) -> logits (n, vocab), each chunk starting from an empty context.
        token_ids: the whole text, with the begin token if the model uses one.
        bos_id: replaces each chunk's first token when given (for models that add a begin token).
        max_chunks: stop after so many chunks.

    Raises:
        InvalidRequestError: the text is shorter than one chunk, or the context than 4 tokens.
    """
    num_chunks = len(token_ids) // context if context >= 4 else 0
    if num_chunks == 0:
        raise InvalidRequestError(
            f"the text has {len(token_ids)} tokens; perplexity needs at least one context of {max(context, 4)} tokens"
        )
    if max_chunks is not None:
        num_chunks = min(num_chunks, max_chunks)
    first = context // 2
    losses = []
    for chunk in range(num_chunks):
        ids = list(token_ids[chunk * context : (chunk + 1) * context])
        if bos_id is not None:
            ids[0] = bos_id
        losses.append(_losses(logits(ids)[first:-1], ids[first + 1 :]))
    loss = np.concatenate(losses)
    mean = float(loss.mean())
    variance = max(float((loss * loss).mean()) - mean * mean, 0.0)
    value = math.exp(mean)
    return PerplexityResult(value, value * math.sqrt(variance / max(len(loss) - 1, 1)), num_chunks, len(loss))


def _losses(logits: npt.NDArray[np.float32], targets: Sequence[int]) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of each target: logits (n, vocab), targets (n,) -> (n,)."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(rows).sum(axis=1))
    losses: npt.NDArray[np.float64] = normaliser - rows[np.arange(len(targets)), np.asarray(targets)]
    return losses

"""Perplexity of a text, by llama.cpp's method and chunking, so that figures compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.llm import LLM
    from torchless.text.tokenizer import Tokenizer

__all__ = ["Chunk", "PerplexityResult", "chunks_of", "perplexity", "score", "text_ids"]

DEFAULT_CONTEXT = 512

Progress = Callable[["PerplexityResult", int], None]
"""Called after each chunk with the result so far and the number of all chunks."""


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


class Chunk(NamedTuple):
    """Token ids of one context; those after `first` are predicted and scored."""

    ids: list[int]
    first: int

    @property
    def targets(self) -> list[int]:
        """The scored tokens; the logits that predict them are rows first .. len(ids) - 2."""
        return self.ids[self.first + 1 :]


def perplexity(
    model: LLM,
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> PerplexityResult:
    """Perplexity of `model` on `text`.

    The text is cut into chunks of `context` tokens that do not overlap, each starting from an empty context.
    Only the second half of each chunk is scored, so that every scored token has at least half a context before
    it. A last, incomplete chunk is left out. This is what llama-perplexity does, so figures compare.

    Raises:
        InvalidRequestError: the text is shorter than one chunk, or `context` is out of range.
    """
    if context > model.context_length:
        raise InvalidRequestError(
            f"chunks of {context} tokens do not fit the context of {model.context_length}; "
            f"load the model with ctx={context} or choose shorter chunks"
        )
    ids, bos_id = text_ids(model.tokenizer, text)
    return score(model.logits, ids, context=context, bos_id=bos_id, max_chunks=max_chunks, progress=progress)


def score(
    logits: Callable[[Sequence[int]], npt.NDArray[np.float32]],
    token_ids: Sequence[int],
    *,
    context: int = DEFAULT_CONTEXT,
    bos_id: int | None = None,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> PerplexityResult:
    """Perplexity of token ids under any function that computes logits. See `perplexity`.

    Args:
        logits: ids (n,) -> logits (n, vocab), each call starting from an empty context.
        token_ids: the whole text, with the begin token if the model uses one.
        bos_id: replaces each chunk's first token when given (for models that add a begin token).
        max_chunks: stop after so many chunks.
    """
    chunks = list(chunks_of(token_ids, context, bos_id, max_chunks))
    losses: list[npt.NDArray[np.float64]] = []
    for chunk in chunks:
        rows = logits(chunk.ids)[chunk.first : -1]
        losses.append(-log_probabilities(rows)[np.arange(len(rows)), chunk.targets])
        if progress is not None:
            progress(_result(losses), len(chunks))
    return _result(losses)


def text_ids(tokenizer: Tokenizer, text: str) -> tuple[list[int], int | None]:
    """Token ids of a text, and the begin token that each chunk starts with (None where the model adds none)."""
    ids = tokenizer.encode(text)
    adds_bos = tokenizer.bos_id is not None and ids[:1] == [tokenizer.bos_id]
    return ids, tokenizer.bos_id if adds_bos else None


def chunks_of(
    token_ids: Sequence[int], context: int, bos_id: int | None, max_chunks: int | None
) -> Iterator[Chunk]:
    """The chunks that are scored. Raises InvalidRequestError when there is none."""
    if context < 4 or (max_chunks is not None and max_chunks < 1):
        raise InvalidRequestError(
            f"chunks need at least 4 tokens and there must be at least one, got {context} tokens and "
            f"{max_chunks} chunks"
        )
    num_chunks = len(token_ids) // context
    if num_chunks == 0:
        raise InvalidRequestError(
            f"the text has {len(token_ids)} tokens; at least one chunk of {context} tokens is needed: "
            f"use a longer text or a shorter chunk"
        )
    for chunk in range(min(num_chunks, max_chunks or num_chunks)):
        ids = list(token_ids[chunk * context : (chunk + 1) * context])
        if bos_id is not None:
            ids[0] = bos_id
        yield Chunk(ids, context // 2)


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Natural logarithms of the softmax, in float64: (n, vocab) -> (n, vocab)."""
    rows: npt.NDArray[np.float64] = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def _result(losses: list[npt.NDArray[np.float64]]) -> PerplexityResult:
    loss = np.concatenate(losses)
    mean = float(loss.mean())
    variance = max(float((loss * loss).mean()) - mean * mean, 0.0)
    value = math.exp(mean)
    return PerplexityResult(
        value, value * math.sqrt(variance / max(len(loss) - 1, 1)), len(losses), len(loss)
    )

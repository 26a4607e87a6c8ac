"""Embeddings: the final states of a text's tokens as one vector, and similar texts as near vectors.

Reimers & Gurevych 2019 (Sentence-BERT). The rows of a text are added up in their order, in float64, so that a vector
has the same bits whatever other texts are computed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from torchless.engine.sequence import Sequence as Tokens
from torchless.errors import ContextLengthError, InvalidRequestError
from torchless.pooling_types import POOLINGS, Pooling

__all__ = ["Embedder", "pool", "truncated"]

Vectors = npt.NDArray[np.float32]

_TOKENS_AT_ONCE = 1 << 14
"""Rows of states that are held at once, all texts of a group together."""


def pool(states: Vectors, pooling: Pooling) -> npt.NDArray[np.float64]:
    """States (n, width) of a text's tokens -> its vector (width,): their mean, the first or the last."""
    if pooling == "mean":
        total: npt.NDArray[np.float64] = np.add.reduce(states, axis=0, dtype=np.float64)
        mean: npt.NDArray[np.float64] = total / len(states)
        return mean
    row: npt.NDArray[np.float64] = states[0 if pooling == "cls" else -1].astype(np.float64)
    return row


def truncated(ids: npt.NDArray[np.int32], length: int, suffix: Sequence[int]) -> npt.NDArray[np.int32]:
    """The first ids, and behind them those that end a text."""
    if len(ids) <= length:
        return ids
    kept = max(length - len(suffix), 0)
    return np.concatenate([ids[:kept], np.array(suffix, np.int32)])[:length]


class Embedder:
    """Makes vectors with one model.

    Args:
        encode: a text or token ids to checked ids.
        suffix: ids that the tokenizer puts behind a text.
        run: computes sequences to their end.
        width: of the states.
        context_length: most tokens of a text.
        pooling, normalize: what the model was trained with.
    """

    def __init__(
        self,
        encode: Callable[[str | Sequence[int]], npt.NDArray[np.int32]],
        suffix: Sequence[int],
        run: Callable[[list[Tokens]], None],
        *,
        width: int,
        context_length: int,
        pooling: Pooling,
        normalize: bool,
    ) -> None:
        self._encode, self._suffix, self._run = encode, suffix, run
        self._width, self._context_length = width, context_length
        self._pooling, self._normalize = pooling, normalize

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        pooling: Pooling | None,
        normalize: bool | None,
        dimensions: int | None,
        truncate: bool,
    ) -> Vectors:
        """Vectors (texts, width or dimensions); see `LLM.embed`."""
        pooling = self._pooling if pooling is None else pooling
        if pooling not in POOLINGS:
            raise InvalidRequestError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        width = self._width if dimensions is None else dimensions
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= self._width:
            raise InvalidRequestError(
                f"dimensions must be a whole number from 1 to {self._width}, got {dimensions!r}"
            )
        unit = self._normalize if normalize is None else normalize
        ids = [self._ids(index, text, truncate) for index, text in enumerate(texts)]
        vectors = np.empty((len(ids), width), np.float32)
        for group in _groups(ids):
            sequences = [self._sequence(ids[index]) for index in group]
            self._run(sequences)
            for index, sequence in zip(group, sequences, strict=True):
                assert sequence.logits is not None
                vector = pool(sequence.logits, pooling)[:width]
                length = float(np.sqrt(vector @ vector))
                vectors[index] = vector / length if unit and length > 0 else vector
        return vectors

    def _ids(self, index: int, text: str | Sequence[int], truncate: bool) -> npt.NDArray[np.int32]:
        ids = self._encode(text)
        if truncate:
            return truncated(ids, self._context_length, self._suffix)
        if len(ids) > self._context_length:
            raise ContextLengthError(
                len(ids),
                self._context_length,
                f"text {index} has {len(ids)} tokens but the context holds {self._context_length}; shorten it, let its "
                f"end be left out (truncate=True, --truncate), or load the model with a larger context if it can have "
                f"one (ctx=..., --ctx)",
            )
        return ids

    def _sequence(self, ids: npt.NDArray[np.int32]) -> Tokens:
        states = np.empty((len(ids), self._width), np.float32)
        return Tokens(ids, max_tokens=len(ids), logits=states)


def _groups(ids: Sequence[npt.NDArray[np.int32]]) -> Iterator[list[int]]:
    """Indices of texts that are computed together, in order."""
    group: list[int] = []
    num_tokens = 0
    for index, tokens in enumerate(ids):
        if group and num_tokens + len(tokens) > _TOKENS_AT_ONCE:
            yield group
            group, num_tokens = [], 0
        group.append(index)
        num_tokens += len(tokens)
    if group:
        yield group

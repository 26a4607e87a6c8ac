"""Reranking: how well each of several documents answers a query, judged by a model that reads both together.

Nogueira & Cho 2019. A cross-encoder scores the pair with a classifier on its first token. A decoder is asked whether
the document meets the query's need, and its logits of "yes" and "no" are the score (Qwen3-Reranker).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from torchless.engine.sequence import Sequence as Tokens
from torchless.errors import ContextLengthError, InvalidRequestError, UnsupportedError
from torchless.results import Ranked
from torchless.text.tokenizer import Tokenizer

__all__ = ["DEFAULT_INSTRUCTION", "Reranker"]

Ids = npt.NDArray[np.int32]

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What Qwen3-Reranker was trained to judge by."""

_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_BEHIND = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""What stands around a pair, as Qwen3-Reranker's model card has it."""

_TOKENS_AT_ONCE = 1 << 14


class Reranker:
    """Scores pairs of texts with one model.

    Args:
        tokenizer: the model's.
        run: computes sequences to their end.
        is_encoder: whether the model reads pairs with a separator between, rather than a question about them.
        num_scores: width of the model's output.
        num_ids, num_types: token ids of the model, and types of tokens: the second text has the second one.
        context_length: most tokens of a pair with what stands around it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        run: Callable[[list[Tokens]], None],
        *,
        is_encoder: bool,
        num_scores: int,
        num_ids: int,
        num_types: int,
        context_length: int,
    ) -> None:
        if num_scores not in ((1,) if is_encoder else (2,)):
            raise UnsupportedError(
                f"this classifier has {num_scores} classes; reranking takes one that has one score"
            )
        self._tokenizer, self._run = tokenizer, run
        self._is_encoder, self._num_scores = is_encoder, num_scores
        self._num_ids, self._num_types = num_ids, num_types
        self._context_length = context_length

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None,
        instruction: str | None,
        truncate: bool,
    ) -> list[Ranked]:
        """See `LLM.rerank`."""
        if self._is_encoder and instruction is not None:
            raise InvalidRequestError("instruction: a cross-encoder takes none; put it into the query")
        if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
            raise InvalidRequestError(f"top_n must be a whole number above 0, got {top_n!r}")
        make = self._pair if self._is_encoder else self._question
        wanted = DEFAULT_INSTRUCTION if instruction is None else instruction
        ids = [make(index, query, document, wanted, truncate) for index, document in enumerate(documents)]
        logits: list[float] = []
        group: list[Tokens] = []
        for tokens in ids:
            if group and sum(len(item.tokens) for item in group) + len(tokens) > _TOKENS_AT_ONCE:
                logits += self._scores(group)
                group = []
            scores = np.empty((len(tokens), self._num_scores), np.float32)
            group.append(Tokens(tokens, max_tokens=len(tokens), logits=scores))
        logits += self._scores(group)
        order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
        return [Ranked(index, _sigmoid(logits[index]), logits[index]) for index in order[:top_n]]

    def _scores(self, group: list[Tokens]) -> list[float]:
        """One logit for each pair: the classifier's on the first token; yes against no behind the last one."""
        self._run(group)
        found = []
        for item in group:
            assert item.logits is not None
            row = item.logits[0 if self._is_encoder else -1].astype(np.float64)
            found.append(float(row[0] if self._is_encoder else row[1] - row[0]))
        return found

    def _pair(self, index: int, query: str, document: str, _: str, truncate: bool) -> Ids:
        prefix, between, suffix = self._tokenizer.frame
        first = [*prefix, *self._tokenizer.encode(query, add_special_tokens=False), *between]
        room = self._context_length - len(first) - len(suffix)
        second = [*self._fitting(index, document, room, truncate), *suffix]
        offset = self._num_ids if self._num_types > 1 else 0
        return np.array([*first, *(token + offset for token in second)], np.int32)

    def _question(self, index: int, query: str, document: str, instruction: str, truncate: bool) -> Ids:
        def marked(text: str) -> list[int]:
            return self._tokenizer.encode(text, add_special_tokens=False, parse_special=True)

        first = marked(_BEFORE)
        behind = marked(_BEHIND)
        room = self._context_length - len(first) - len(behind)
        pair = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        return np.array([*first, *self._fitting(index, pair, room, truncate), *behind], np.int32)

    def _fitting(self, index: int, text: str, room: int, truncate: bool) -> list[int]:
        """Ids of a text that has a document at its end, where there is `room` for so many."""
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if len(ids) <= room:
            return ids
        if truncate and room > 0:
            return ids[:room]
        length = self._context_length
        total = len(ids) + length - room
        raise ContextLengthError(
            total,
            length,
            f"document {index} and the query have {total} tokens together but the context holds {length}; shorten "
            f"them, let the document's end be left out (truncate=True, --truncate), or load the model with a larger "
            f"context if it can have one (ctx=..., --ctx)",
        )


def _sigmoid(x: float) -> float:
    return float(0.5 * (1.0 + np.tanh(0.5 * x)))

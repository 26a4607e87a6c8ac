"""One answer in the making: from token ids to text, where it stops, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from torchless.constraints.constraint import Constraint
from torchless.constraints.requests import parse_json
from torchless.engine.sequence import Sequence, TakeBack
from torchless.results import Chunk, Completion, FinishReason, Timings, TokenLogprob, Usage
from torchless.sampling.chain import Sampler
from torchless.sampling.logprobs import LogprobRecorder
from torchless.sampling.parameters import SamplingParams
from torchless.text.answer import AnswerText
from torchless.text.stream import StopMatcher, TextStream
from torchless.text.tokenizer import Tokenizer

__all__ = ["Generation"]


class Generation:
    """A request between its call and its completion. Belongs to the thread that holds the engine.

    Attributes:
        sequence: what the engine computes for it.
    """

    def __init__(
        self,
        prompt_ids: npt.NDArray[np.int32],
        params: SamplingParams,
        tokenizer: Tokenizer,
        *,
        context_length: int,
        continuation: bool,
        show_special: bool = False,
        logits_hash: bool,
        called_at: float,
        more_end_ids: Collection[int] = (),
        constraint: Constraint | None = None,
        is_json: bool = False,
        index: int = 0,
        has_score: bool = False,
        priority: int = 0,
    ) -> None:
        """Sets a request up.

        Args:
            prompt_ids: shorter than the context.
            params: with a seed.
            tokenizer: turns ids into text and knows the end tokens.
            context_length: most tokens of prompt and answer together.
            continuation: the answer goes on with the text of the prompt, so that a space in front stays.
            show_special: control tokens are part of the text.
            logits_hash: whether `Completion.logits_hash` is wanted.
            called_at: clock when the user asked, in seconds.
            more_end_ids: tokens that end this answer beside the tokenizer's own end tokens.
            constraint: what the answer must match.
            is_json: that is one JSON value.
            index: which answer of its request it is.
            has_score: whether `Completion.mean_logprob` is wanted.
            priority: as in `Request`.
        """
        self._called_at = called_at
        self._params = params
        self._is_json = is_json
        self._eos_ids: Collection[int] = frozenset(tokenizer.eos_ids).union(more_end_ids)
        num_left = context_length - len(prompt_ids)
        num_new = num_left if params.max_tokens is None else min(params.max_tokens, num_left)
        self._index = index
        self._logprobs = _recorder(0 if has_score and params.logprobs is None else params.logprobs)
        self.sequence = Sequence(
            prompt_ids,
            max_tokens=len(prompt_ids) + num_new,
            sampler=Sampler(
                params,
                self._eos_ids,
                num_prompt_tokens=len(prompt_ids),
                token_text=lambda token_id: tokenizer.decode([token_id]),
            ),
            accept=self._accept,
            constraint=constraint,
            hash_logits=logits_hash,
            logprobs=self._logprobs,
            prompt_logprobs=_recorder(params.prompt_logprobs),
            priority=priority,
        )
        self._tokenizer = tokenizer
        stream = TextStream(
            tokenizer,
            skip_special_tokens=not show_special,
            continuation=continuation or constraint is not None,
        )
        self._text = AnswerText(stream, StopMatcher(params.stop, params.banned), tokenizer.vocab_size)
        self._token_ids: list[int] = []  # all generated, without the end token
        self._num_taken_ids = 0  # how much of it, and of the pieces of text, `take` has handed out
        self._num_taken_pieces = 0
        self._num_picked = 0  # tokens picked, the end token included
        self._first_token_at = 0.0
        self._last_token_at = 0.0

    @property
    def has_news(self) -> bool:
        """Whether `take` has something to return."""
        return self._text.num_pieces > self._num_taken_pieces or self.sequence.finish_reason is not None

    def take(self) -> Chunk | None:
        """What is new since the last call; None when nothing is. The last chunk carries the completion."""
        if not self.has_news:
            return None
        completion = self.completion() if self.sequence.finish_reason is not None else None
        first, end = self._num_taken_ids, self._text.num_certain_tokens
        chunk = Chunk(
            self._text.text(self._num_taken_pieces),
            tuple(self._token_ids[first:end]),
            self.sequence.finish_reason,
            completion,
            self._logprobs_of(first, end),
            self._index,
        )
        self._num_taken_pieces = self._text.num_pieces
        self._num_taken_ids = end
        return chunk

    def completion(self) -> Completion:
        """The whole answer, once the sequence has ended. Raises what ended the sequence, if that was an error."""
        sequence = self.sequence
        reason = sequence.finish_reason
        assert reason is not None, "the sequence has not ended"
        if sequence.failure is not None:
            raise sequence.failure
        self._text.flush()
        text = self._text.text()
        return Completion(
            text=text,
            token_ids=tuple(self._token_ids),
            finish_reason=reason,
            usage=Usage(
                sequence.num_prompt_tokens,
                len(self._token_ids),
                num_cached_tokens=sequence.num_cached_tokens,
                num_drafted_tokens=sequence.num_drafted_tokens,
                num_kept_tokens=sequence.num_kept_tokens,
            ),
            timings=self._timings(),
            params=self._params,
            logits_hash=sequence.digest.hexdigest() if sequence.digest is not None else "",
            stop=self._text.stop,
            parsed=parse_json(text) if self._is_json and self._is_whole() else None,
            logprobs=self._logprobs_of(0, len(self._token_ids)),
            prompt_logprobs=self._prompt_logprobs(),
            mean_logprob=self._logprobs.mean if self._logprobs is not None else None,
        )

    def _logprobs_of(self, begin: int, end: int) -> tuple[TokenLogprob, ...] | None:
        """Of some of `_token_ids`, where they were asked for."""
        if self._logprobs is None or self._params.logprobs is None:
            return None
        return self._logprobs.entries(self._tokenizer, begin, end)

    def _prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        recorder = self.sequence.prompt_logprobs
        return None if recorder is None else (None, *recorder.entries(self._tokenizer))

    def _is_whole(self) -> bool:
        """Whether the text came to the end that its constraint wants."""
        constraint, reason = self.sequence.constraint, self.sequence.finish_reason
        return reason == "stop" and self._text.stop is None and bool(constraint and constraint.is_satisfied)

    def _accept(self, token_id: int) -> FinishReason | TakeBack | None:
        """Takes the next token; says "stop" where it ends the text, or where in the text something banned began.

        Called by the engine, once for every token that it picks.
        """
        self._last_token_at = time.perf_counter()
        if not self._num_picked:
            self._first_token_at = self._last_token_at
        self._num_picked += 1
        if token_id in self._eos_ids:
            return "stop"
        self._token_ids.append(token_id)
        begin = self._text.push(token_id)
        if begin is not None:
            self._text.rewind(begin)
            del self._token_ids[begin:]
            return TakeBack(self.sequence.num_prompt_tokens + begin)
        return None if self._text.stop is None else "stop"

    def _timings(self) -> Timings:
        started_at = self.sequence.started_at
        if not self._num_picked or started_at is None:
            return Timings(0.0, 0.0, 0.0, 0.0, 0.0)
        prefill = self._first_token_at - started_at
        num_computed = self.sequence.num_prompt_tokens - self.sequence.num_cached_tokens
        decode = self._last_token_at - self._first_token_at
        return Timings(
            prefill_ms=prefill * 1e3,
            decode_ms=decode * 1e3,
            time_to_first_token_ms=(self._first_token_at - self._called_at) * 1e3,
            prefill_tokens_per_second=num_computed / prefill if prefill > 0 else 0.0,
            decode_tokens_per_second=(self._num_picked - 1) / decode if decode > 0 else 0.0,
        )


def _recorder(num_top: int | None) -> LogprobRecorder | None:
    return None if num_top is None else LogprobRecorder(num_top)

"""Beam search of a loaded model: a checked request, its group of sequences, and what they found as completions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS, ExecutorOptions
from torchless.engine.beams import BeamGroup
from torchless.engine.scheduler import pages_for
from torchless.engine.sequence import Sequence
from torchless.errors import ContextLengthError, InvalidRequestError
from torchless.requests import Request
from torchless.results import Completion, Timings, Usage
from torchless.sampling.beams import BeamSearch, EarlyStopping, Hypothesis
from torchless.sampling.checks import integer_in, invalid, number_in
from torchless.sampling.parameters import SamplingParams
from torchless.text.stream import TextStream
from torchless.text.tokenizer import Tokenizer

__all__ = ["BeamSettings", "run_beam_search"]

MAX_BEAMS = 64


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """How a search is done; see `LLM.beam_search`.

    Raises:
        InvalidRequestError: a value out of range, or more answers than beams.
    """

    beams: int = 4
    n: int = 1
    max_tokens: int | None = None
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        integer_in(1, MAX_BEAMS, f"a whole number from 1 to {MAX_BEAMS}")("beams", self.beams)
        integer_in(1, None, "a whole number, 1 or more")("n", self.n)
        integer_in(1, None, "a whole number, 1 or more, or None (as many as fit)", optional=True)(
            "max_tokens", self.max_tokens
        )
        number_in(-math.inf, math.inf, "a finite number (0 is off)")("length_penalty", self.length_penalty)
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise invalid("early_stopping", self.early_stopping, "True, False or 'never'")
        if self.n > self.beams:
            raise InvalidRequestError(f"n must be at most beams, got {self.n} answers of {self.beams} beams")


def run_beam_search(
    request: Request,
    prompt_ids: npt.NDArray[np.int32],
    settings: BeamSettings,
    tokenizer: Tokenizer,
    complete: Callable[[list[Sequence]], None],
    *,
    options: ExecutorOptions,
    context_length: int,
    most_at_once: int,
    end_ids: Collection[int],
) -> Completion:
    """The best answer, with the others in `Completion.others`.

    Args:
        request, prompt_ids: what is answered, and its tokens.
        complete: returns when sequences have ended (`Runner.complete`).
        options: of the executor, whose pages the beams must fit into together.
        most_at_once: sequences that can be under way at once.
        end_ids: tokens that end an answer.

    Raises:
        ContextLengthError: the prompt does not fit.
        InvalidRequestError: the beams do not fit beside each other.
    """
    called_at = time.perf_counter()
    if len(prompt_ids) >= context_length:
        raise ContextLengthError(len(prompt_ids), context_length)
    search = BeamSearch(
        settings.beams,
        _most_tokens(len(prompt_ids), settings, options, context_length, most_at_once),
        end_ids,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
    )
    group = BeamGroup(prompt_ids, search, request.priority)
    complete(group.sequences)
    for sequence in group.sequences:
        if sequence.failure is not None:
            raise sequence.failure
    timings = _timings(group, called_at)
    found = [
        _completion(one, group, timings, tokenizer, frozenset(end_ids), request)
        for one in search.finished[: settings.n]
    ]
    return replace(found[0], others=tuple(found[1:]))


def _most_tokens(
    num_prompt_tokens: int,
    settings: BeamSettings,
    options: ExecutorOptions,
    context_length: int,
    most_at_once: int,
) -> int:
    """Most tokens of an answer, so that all beams fit into the cache even where they share nothing."""
    if settings.beams > most_at_once:
        raise InvalidRequestError(
            f"{settings.beams} beams are computed at once, and this model takes {most_at_once} texts at once at most: "
            f"ask for fewer beams"
        )
    num_left = context_length - num_prompt_tokens
    wanted = num_left if settings.max_tokens is None else min(settings.max_tokens, num_left)
    num_pages = options.num_pages // settings.beams
    if settings.max_tokens is None:
        wanted = min(wanted, num_pages * PAGE_TOKENS - num_prompt_tokens)
    if wanted < 1 or pages_for(num_prompt_tokens + wanted) > num_pages:
        num_tokens = options.num_pages * PAGE_TOKENS
        raise InvalidRequestError(
            f"{settings.beams} beams of {num_prompt_tokens + max(wanted, 1)} tokens, prompt included, do not "
            f"fit into the cache of {num_tokens} tokens: ask for fewer beams or max_tokens, or load "
            f"the model with a larger ctx"
        )
    return wanted


def _completion(
    found: Hypothesis,
    group: BeamGroup,
    timings: Timings,
    tokenizer: Tokenizer,
    end_ids: frozenset[int],
    request: Request,
) -> Completion:
    has_end = found.token_ids[-1] in end_ids
    token_ids = found.token_ids[:-1] if has_end else found.token_ids
    stream = TextStream(
        tokenizer, skip_special_tokens=not request.show_special, continuation=request.kind != "chat"
    )
    known = (token_id for token_id in token_ids if token_id < tokenizer.vocab_size)
    text = "".join([*map(stream.push, known), stream.flush()])
    first = group.sequences[0]
    return Completion(
        text=text,
        token_ids=token_ids,
        finish_reason="stop" if has_end else "length",
        usage=Usage(
            first.num_prompt_tokens,
            len(token_ids),
            num_cached_tokens=min(sequence.num_cached_tokens for sequence in group.sequences),
        ),
        timings=timings,
        params=SamplingParams(temperature=0, max_tokens=group.search.max_tokens),
        mean_logprob=found.logprob / len(found.token_ids),
    )


def _timings(group: BeamGroup, called_at: float) -> Timings:
    """Of the whole search: it has one time, whatever answer is looked at."""
    started = [one.started_at for one in group.sequences if one.started_at is not None]
    first = group.sequences[0]
    prefill = group.first_at - min(started, default=group.first_at)
    decode = group.last_at - group.first_at
    num_steps = max(len(one.token_ids) for one in group.search.finished) - 1
    return Timings(
        prefill_ms=prefill * 1e3,
        decode_ms=decode * 1e3,
        time_to_first_token_ms=(group.first_at - called_at) * 1e3,
        prefill_tokens_per_second=first.num_prompt_tokens / prefill if prefill > 0 else 0.0,
        decode_tokens_per_second=num_steps / decode if decode > 0 else 0.0,
    )

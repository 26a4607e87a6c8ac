"""What a request returns: plain frozen dataclasses with units in their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchless.sampling.parameters import SamplingParams

__all__ = ["Chunk", "Completion", "FinishReason", "Ranked", "Timings", "TokenLogprob", "Usage"]

FinishReason = Literal["stop", "length", "cancelled"]
"""``stop``: an end token or a stop string; ``length``: max_tokens or the context is full; ``cancelled``:
the model was interrupted from another thread."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        num_prompt_tokens: tokens of the prompt, begin token included.
        num_completion_tokens: tokens in the answer (`Completion.token_ids`).
        num_cached_tokens: prompt tokens that did not have to be computed (docs/prefix-cache.md).
        num_drafted_tokens: tokens that were guessed and computed ahead (docs/speculation.md).
        num_kept_tokens: of those, the ones that were right.
    """

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int = 0
    num_drafted_tokens: int = 0
    num_kept_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock times of one request.

    Attributes:
        prefill_ms: from the request's first step to its first token.
        decode_ms: from the first token to the last.
        time_to_first_token_ms: from the call to the first token.
        prefill_tokens_per_second, decode_tokens_per_second: of the tokens that were computed; 0.0 when nothing was
            timed.
    """

    prefill_ms: float
    decode_ms: float
    time_to_first_token_ms: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and how likely the model found it: before temperature, masks and all else that a sampler does.

    Attributes:
        token_id: its id.
        text: what it writes; control tokens by their names, bytes that are no whole character as U+FFFD.
        token_bytes: the bytes that it writes. Those of all tokens, joined, are the text in UTF-8.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens in its place, the likeliest first, as many as were asked for. The token itself is one
            of them where it is likely enough. Their own `top` is empty.
    """

    token_id: int
    text: str
    token_bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request.

    Attributes:
        text: generated text, without the stop string that ended it.
        token_ids: generated ids, without the end token; those of a stop string are among them.
        finish_reason: why it ended.
        params: the sampling parameters in force, defaults and the seed filled in: `generate` with the
            same prompt and ``params=completion.params`` gives the same answer again.
        stop: the stop string that ended it; None where none did.
        parsed: the value, where the text was to be JSON (docs/constraints.md) and came to its end; else None.
        logits_hash: hash of all logits that tokens were picked from, in order; equal hashes mean equal
            bits. Empty unless asked for (``logits_hash=True``).
        logprobs: of each of `token_ids`, if asked for (``logprobs=K``); else None.
        prompt_logprobs: of each token of the prompt, if asked for (``prompt_logprobs=K``); else None. The first token
            follows nothing and has None. Of several answers the first has it.
        mean_logprob: mean log probability of the answer's tokens, its end token included, where `logprobs` or
            ``best_of`` was asked for; else None.
        others: further answers of a request with ``n`` above 1.
        num_dropped_messages: the oldest messages of its conversation that the model was not told, since they did not
            fit (`Session.context_shift`).
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    params: SamplingParams
    logits_hash: str = ""
    stop: str | None = None
    parsed: Any = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    mean_logprob: float | None = None
    others: tuple[Completion, ...] = ()
    num_dropped_messages: int = 0

    @property
    def choices(self) -> tuple[Completion, ...]:
        """All answers of the request, this one first."""
        return (self, *self.others)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer. `text` never ends inside a character.

    `index` says which answer of a request with ``n`` above 1 it belongs to, from 0 on; pieces of all of them come as
    they are ready.

    The last chunk of an answer has a `finish_reason` and the whole `completion`; the others have neither. Joined, the
    texts, ids and `logprobs` of its chunks are those of the completion.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    completion: Completion | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place.

    Attributes:
        index: of the document in the list that was given.
        score: from 0 to 1, the higher the better: the sigmoid of `logit`.
        logit: what the model says: a classifier's output, or the logit of "yes" less that of "no".
    """

    index: int
    score: float
    logit: float

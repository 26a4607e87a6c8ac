"""The state of one sequence: its tokens, how many of them are computed, and the pages that hold them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS

if TYPE_CHECKING:
    from torchless.constraints.constraint import Constraint
    from torchless.engine.beams import BeamGroup
    from torchless.engine.draft_tree import DraftTree
    from torchless.results import FinishReason
    from torchless.sampling.chain import Sampler
    from torchless.sampling.logprobs import LogprobRecorder

__all__ = ["Sequence", "State", "TakeBack"]

State = Literal["new", "waiting", "running", "finished"]


class TakeBack(NamedTuple):
    """What `Sequence.accept` says where tokens shall not stay: the text goes on with another token at this position."""

    position: int


class Sequence:
    """One run of tokens that the engine computes, and extends when it has a sampler.

    A *generating* sequence has a `sampler` and grows by one token a step until `accept` or a limit ends it.
    A *scoring* sequence has `logits` instead: the rows of all its tokens are copied there and it ends.

    Attributes (who writes them):
        tokens: int32 buffer, prompt first; ``tokens[:num_tokens]`` is valid (`append`).
        num_prompt_tokens, max_tokens: fixed; the sequence ends with reason ``length`` at `max_tokens`
            tokens, prompt included.
        num_tokens: tokens known (`append`, `take_back`).
        forbidden: token ids that may not be picked, by position (`take_back`).
        num_computed_tokens: leading tokens whose keys and values lie in the pages, and whose effect on the
            recurrent state is in its slot (engine after a step; scheduler back to 0 on preemption and after a step
            that broke off).
        page_ids, num_pages: page table, ``page_ids[:num_pages]`` is valid (`add_pages`, `take_pages`).
        num_published_pages: of those, the leading ones that others may share (`PrefixCache`).
        page_keys: chain keys of its leading pages, as far as anybody asked (`PrefixCache`).
        kept_state: chain key of the state that was kept of it last while it generated (`PrefixCache`).
        is_not_stored: what comes next in it was looked for on disk in vain (`PrefixCache`).
        num_cached_tokens: tokens of the prompt that it found computed (`PrefixCache`).
        state_slot: where its recurrent state lies while it runs, in models that have one (scheduler).
        state: which of the scheduler's queues has it (scheduler).
        priority: whether it comes before (below 0) or behind (above 0) others of its age; fixed.
        rank: its place among all others; the lower comes first (scheduler).
        num_preemptions: how often its pages were taken away (scheduler).
        added_at: clock when it was queued first, in seconds (engine).
        started_at: clock at the first step it took part in, in seconds (scheduler).
        finish_reason: why it ended, None before (engine).
        constraint: which tokens may come next, None where all may (engine: told every new token).
        failure: what ended it where that was an error of its own, None else (engine).
        digest: running hash of the logits that were sampled from, or None (engine).
        logprobs: log probabilities of its new tokens, or None (engine).
        prompt_logprobs: those of its prompt's tokens but the first, or None (engine).
        group: the sequences that it searches with, which says how it goes on in its sampler's place; None for none.
        draft: tokens that may come next, for the step that is put together (`Speculation`); None for none.
        num_drafted_tokens, num_kept_tokens: drafted tokens that were computed, and those that were right
            (`Speculation`).
    """

    __slots__ = (
        "accept",
        "added_at",
        "constraint",
        "digest",
        "draft",
        "failure",
        "finish_reason",
        "forbidden",
        "group",
        "is_not_stored",
        "kept_state",
        "logits",
        "logprobs",
        "max_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_drafted_tokens",
        "num_kept_tokens",
        "num_pages",
        "num_preemptions",
        "num_prompt_tokens",
        "num_published_pages",
        "num_tokens",
        "page_ids",
        "page_keys",
        "priority",
        "prompt_logprobs",
        "rank",
        "sampler",
        "started_at",
        "state",
        "state_slot",
        "tokens",
    )

    def __init__(
        self,
        prompt_ids: npt.NDArray[np.int32],
        *,
        max_tokens: int,
        sampler: Sampler | None = None,
        accept: Callable[[int], FinishReason | TakeBack | None] | None = None,
        constraint: Constraint | None = None,
        logits: npt.NDArray[np.float32] | None = None,
        hash_logits: bool = False,
        logprobs: LogprobRecorder | None = None,
        prompt_logprobs: LogprobRecorder | None = None,
        group: BeamGroup | None = None,
        priority: int = 0,
    ) -> None:
        """A sequence that has computed nothing yet.

        Args:
            prompt_ids: int32 (n,), n >= 1; copied.
            max_tokens: total length at which it ends, prompt included.
            sampler: picks the next token; None for a scoring sequence.
            accept: told every new token as it is appended; a reason ends the sequence there, and a `TakeBack` takes
                tokens back.
            constraint: which tokens the sampler may pick.
            logits: float32 (n, vocab) that receives all rows of a scoring sequence.
            hash_logits: keep `digest`.
            priority: as the attribute.
            logprobs, prompt_logprobs: empty recorders for tokens that are picked, and for those of the prompt.
        """
        self.num_prompt_tokens = len(prompt_ids)
        if self.num_prompt_tokens < 1:
            raise ValueError("a sequence needs at least one token")
        if (sampler is None) == (logits is None):
            raise ValueError("a sequence either samples or keeps its logits")
        self.tokens = np.array(prompt_ids, dtype=np.int32)
        self.num_tokens = self.num_prompt_tokens
        self.num_computed_tokens = 0
        self.max_tokens = max_tokens
        self.page_ids: npt.NDArray[np.int32] = np.empty(4, dtype=np.int32)
        self.num_pages = self.num_published_pages = 0
        self.page_keys: list[bytes] = []
        self.is_not_stored = False
        self.kept_state = b""
        self.num_cached_tokens = 0
        self.sampler = sampler
        self.accept = accept
        self.constraint = constraint
        self.forbidden: dict[int, set[int]] = {}
        self.failure: Exception | None = None
        self.logits = logits
        self.digest = blake2b(digest_size=8) if hash_logits else None
        self.logprobs = logprobs
        self.prompt_logprobs = prompt_logprobs
        self.group = group
        self.draft: DraftTree | None = None
        self.num_drafted_tokens = self.num_kept_tokens = 0
        self.state: State = "new"
        self.state_slot = 0
        self.priority = priority
        self.rank = (0.0, -1)
        self.num_preemptions = 0
        self.added_at = 0.0
        self.started_at: float | None = None
        self.finish_reason: FinishReason | None = None

    @property
    def num_pending_tokens(self) -> int:
        """Tokens known but not computed: 1 while decoding, more during prefill."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def is_at_end(self) -> bool:
        """Whether it may not go on: all tokens are scored, or the next one would be one too many."""
        if self.sampler is None:
            return self.num_computed_tokens == self.num_tokens
        return self.num_tokens >= self.max_tokens

    @property
    def wants_all_rows(self) -> bool:
        """Whether the logits behind each of its next tokens are wanted, not only behind the last that is known."""
        if self.prompt_logprobs is not None:
            return len(self.prompt_logprobs) < self.num_prompt_tokens - 1
        return self.logits is not None

    @property
    def needs_whole_rows(self) -> bool:
        """Whether the largest of a row's logits, which its sampler may do with, are not enough."""
        return (
            self.constraint is not None
            or self.logprobs is not None
            or self.digest is not None
            or self.num_tokens in self.forbidden
            or self.group is not None
            or self.wants_all_rows
        )

    @property
    def history(self) -> npt.NDArray[np.int32]:
        """All tokens so far, a view."""
        history: npt.NDArray[np.int32] = self.tokens[: self.num_tokens]
        return history

    def append(self, token_id: int) -> None:
        """Adds a generated token; the buffer doubles when it is full, so that this is O(1)."""
        if self.num_tokens == len(self.tokens):
            self.tokens = _grown(self.tokens, self.num_tokens + 1)
        self.tokens[self.num_tokens] = token_id
        self.num_tokens += 1

    def replace_tokens(self, token_ids: npt.NDArray[np.int32]) -> None:
        """Takes other tokens than it had, of which nothing is said to be computed: that is the caller's to change."""
        self.tokens = np.array(token_ids, dtype=np.int32)
        self.num_tokens = len(token_ids)
        self.is_not_stored = False

    def take_back(self, position: int) -> None:
        """Forgets the tokens from a position on, and forbids the one that stood there. Not for those of the prompt.

        The token before is computed once more, for its logits. What was forbidden further on was so behind tokens that
        are gone.
        """
        if position < self.num_prompt_tokens:
            raise ValueError("tokens of the prompt cannot be taken back")
        token_id = int(self.tokens[position])
        if self.logprobs is not None:
            self.logprobs.truncate(position - self.num_prompt_tokens)
        self.forbidden = {place: ids for place, ids in self.forbidden.items() if place <= position}
        self.forbidden.setdefault(position, set()).add(token_id)
        self.num_tokens = position
        self.num_computed_tokens = min(self.num_computed_tokens, position - 1)

    def add_pages(self, page_ids: list[int]) -> None:
        """Extends the page table."""
        end = self.num_pages + len(page_ids)
        if end > len(self.page_ids):
            self.page_ids = _grown(self.page_ids, end)
        self.page_ids[self.num_pages : end] = page_ids
        self.num_pages = end

    def leave_published_pages(self) -> list[int]:
        """Takes the pages out of the table that others may read and this sequence would write again; returns them.

        What it keeps of them is computed again, in pages of its own.
        """
        num_whole = self.num_computed_tokens // PAGE_TOKENS
        del self.page_keys[num_whole:]
        if self.num_published_pages <= num_whole:
            return []
        left: list[int] = self.page_ids[num_whole : self.num_pages][::-1].tolist()
        self.num_pages = self.num_published_pages = num_whole
        self.num_computed_tokens = num_whole * PAGE_TOKENS
        return left

    def take_pages(self) -> npt.NDArray[np.int32]:
        """Empties the page table and returns what it held; nothing is computed any more."""
        taken: npt.NDArray[np.int32] = self.page_ids[: self.num_pages].copy()
        self.num_pages = self.num_published_pages = 0
        self.num_computed_tokens = 0
        self.is_not_stored = False
        return taken


def _grown(buffer: npt.NDArray[np.int32], needed: int) -> npt.NDArray[np.int32]:
    """A copy of `buffer` with room for `needed` elements and as much again as it had."""
    larger = np.empty(max(needed, 2 * len(buffer), 64), dtype=np.int32)
    larger[: len(buffer)] = buffer
    return larger

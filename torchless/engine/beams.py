"""Sequences that search together: none goes on before all have computed their next token.

A sequence that waits for the others has no token to compute, so that the scheduler passes it over; it keeps its pages.
Once the last one has its logits the search says which beginnings go on, and sequences take the places of others: they
share the pages that are full and copy what the last one holds.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS
from torchless.engine.pages import PageAllocator
from torchless.engine.sequence import Sequence
from torchless.results import FinishReason
from torchless.sampling.beams import BeamSearch, Continuations
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

__all__ = ["BeamGroup", "CopySlots"]

CopySlots = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]], None]
"""`Executor.copy_slots`."""


class BeamGroup:
    """The sequences of one beam search.

    Attributes:
        search: what is sought, and in the end what was found.
        sequences: one for each beam. All are submitted, and all end together.
        first_at, last_at: clock when the first tokens were chosen, and the last, in seconds; 0.0 before.
    """

    def __init__(self, prompt_ids: npt.NDArray[np.int32], search: BeamSearch, priority: int = 0) -> None:
        """Sequences that begin with the same prompt; see `Sequence` for `priority`."""
        sampler = Sampler(SamplingParams(temperature=0))  # the search picks
        self.search = search
        self.sequences = [
            Sequence(
                prompt_ids,
                max_tokens=len(prompt_ids) + search.max_tokens,
                sampler=sampler,
                group=self,
                priority=priority,
            )
            for _ in range(search.num_beams)
        ]
        self.first_at = self.last_at = 0.0
        self._rows: dict[Sequence, Continuations] = {}

    def note(self, sequence: Sequence, logits: npt.NDArray[np.float32]) -> None:
        """Reads the logits behind a sequence's last token. Doing so again, after a preemption, changes nothing."""
        self._rows[sequence] = self.search.continuations(logits)

    def advance(self, pages: PageAllocator, copy_slots: CopySlots | None) -> list[int]:
        """Goes on if every sequence has its logits. Ends them all at the end of the search, or where one failed.

        Args:
            copy_slots: None where what a sequence computed cannot be shared: recurrent state.

        Returns:
            Pages that are empty now.
        """
        if any(sequence.finish_reason is not None for sequence in self.sequences):
            self._end("cancelled")
            return []
        if len(self._rows) < len(self.sequences):
            return []
        self.last_at = perf_counter()
        self.first_at = self.first_at or self.last_at
        count = len(self.search.running)
        chosen = self.search.advance([self._rows[sequence] for sequence in self.sequences[:count]])
        self._rows.clear()
        if chosen is None:
            self._end("stop")
            return []
        chosen += [chosen[-1]] * (len(self.sequences) - len(chosen))  # fewer than beams: a tiny vocabulary
        return self._move(chosen, pages, copy_slots)

    def _end(self, reason: FinishReason) -> None:
        for sequence in self.sequences:
            sequence.finish_reason = sequence.finish_reason or reason

    def _move(
        self, chosen: list[tuple[int, int]], pages: PageAllocator, copy_slots: CopySlots | None
    ) -> list[int]:
        """Lets the sequences become the beams that go on; one that stays in its place moves nothing."""
        order = _places([parent for parent, _ in chosen])
        befores = [_Before(sequence) for sequence in self.sequences]
        left: list[int] = []
        for place, beam in enumerate(order):
            parent, token_id = chosen[beam]
            sequence = self.sequences[place]
            if parent != place:
                left += sequence.page_ids[: sequence.num_pages].tolist()
                befores[parent].become(sequence, pages, copy_slots)
            sequence.append(token_id)
        by_beam = sorted(zip(order, self.sequences, strict=True), key=lambda pair: pair[0])
        self.sequences = [sequence for _, sequence in by_beam]
        return pages.free(left)


class _Before:
    """What a sequence had before any of them moved."""

    def __init__(self, sequence: Sequence) -> None:
        self.tokens = sequence.history.copy()
        self.table = sequence.page_ids[: sequence.num_pages].tolist()
        self.num_computed_tokens = sequence.num_computed_tokens
        self.num_published_pages = sequence.num_published_pages
        self.page_keys = list(sequence.page_keys)
        self.is_running = sequence.state == "running"

    def become(self, sequence: Sequence, pages: PageAllocator, copy_slots: CopySlots | None) -> None:
        """Makes another sequence the same. What it cannot share or copy it computes again."""
        sequence.replace_tokens(self.tokens)
        sequence.page_keys = list(self.page_keys)
        table: list[int] = []
        num_computed = num_published = 0
        if copy_slots is not None and self.is_running and sequence.state == "running":
            num_whole, num_left = divmod(self.num_computed_tokens, PAGE_TOKENS)
            table = self.table[:num_whole]
            for page in table:
                pages.share(page)
            num_computed, num_published = num_whole * PAGE_TOKENS, min(self.num_published_pages, num_whole)
            if num_left and pages.num_free:
                table += pages.alloc(1)
                slots = np.arange(num_left, dtype=np.int32)
                copy_slots(np.array([self.table[num_whole], table[-1]], np.int32), slots, PAGE_TOKENS + slots)
                num_computed += num_left
        sequence.num_pages = 0
        sequence.add_pages(table)
        sequence.num_computed_tokens, sequence.num_published_pages = num_computed, num_published


def _places(parents: list[int]) -> list[int]:
    """Which beam each place gets: of those that continue the beam in that place the first, so that it moves nothing."""
    order = [-1] * len(parents)
    others = []
    for beam, parent in enumerate(parents):
        if order[parent] < 0:
            order[parent] = beam
        else:
            others.append(beam)
    rest = iter(others)
    return [beam if beam >= 0 else next(rest) for beam in order]

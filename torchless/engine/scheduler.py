"""Chooses what the next step computes: decodes first, then chunks of prompts, oldest sequence first.

Sequences are *running* (they own pages) or *waiting* (they own none). *Older* means: arrived earlier, where a
sequence with a priority counts as having come earlier or later by so many times `PRIORITY_SECONDS`. Running ones make
way for a waiting one that is older. When pages run out an older sequence takes those of the youngest running one, which
waits and computes its tokens again later. The oldest can thus always go on, so everything ends.

Pages that hold what a sequence begins with are shared instead of computed (`PrefixCache`), and where an older running
one is about to compute them, a younger one waits for it. The oldest waits for nobody, so everything still ends.

A running sequence also has a state slot, for models with recurrent state. A state cannot go back: who is preempted, or
was in a step that broke off, starts anew, from a state that was kept (`KeptStates`) or from the first token.

In fast mode a token's place decides how it is computed, and nothing else: a prompt's tokens in fast arithmetic if there
are enough of them (`fast_tokens`), all others exactly. So its bits do not depend on chunks, preemption or neighbours.
"""

from __future__ import annotations

import time
from bisect import bisect, insort
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from itertools import chain

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS
from torchless.engine.assembly import Run, Schedule, assemble
from torchless.engine.fast_tokens import num_fast_tokens
from torchless.engine.pacing import StepPacing
from torchless.engine.pages import PageAllocator
from torchless.engine.prefix_cache import PrefixCache
from torchless.engine.sequence import Sequence
from torchless.engine.step_room import StepRoom

__all__ = ["PRIORITY_SECONDS", "Run", "Schedule", "Scheduler"]

PRIORITY_SECONDS = 10.0
"""What one step of `Sequence.priority` is worth, in seconds of waiting. So nobody waits for ever."""


class Scheduler:
    """Queues and page tables of all sequences of one engine.

    Args:
        pages: the executor's pages.
        max_batch_tokens: most token rows in a step.
        max_outputs: most logits rows in a step; also most sequences that run at once, so that each of
            them can decode in every step.
        num_state_slots: most sequences that run at once because each needs a slot; 0 for a model without state.
        needs_whole_sequences: all tokens of a sequence go into one step.
        is_fast: prompts are computed in fast arithmetic (`ExecutorOptions.fast`).
        pacing: says how many prompt tokens may join a step in which others decode; None for as many as fit.
        prefix_cache: lets sequences share pages with the same tokens; None for none. Not where a sequence has a state,
            which nobody copies, or goes into one step as a whole.
    """

    def __init__(
        self,
        pages: PageAllocator,
        max_batch_tokens: int,
        max_outputs: int,
        num_state_slots: int = 0,
        *,
        needs_whole_sequences: bool = False,
        is_fast: bool = False,
        pacing: StepPacing | None = None,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        self.pages = pages
        self.max_batch_tokens = max_batch_tokens
        self.max_outputs = max_outputs
        self.num_state_slots = num_state_slots
        self.needs_whole_sequences = needs_whole_sequences
        self.is_fast = is_fast
        self.pacing = None if needs_whole_sequences else pacing
        self.prefix_cache = prefix_cache
        self.running: list[Sequence] = []  # oldest first
        self.waiting: list[Sequence] = []  # oldest first
        self.num_preemptions = 0  # of all sequences so far
        self._num_arrivals = 0
        self._step = StepRoom(max_batch_tokens, max_outputs)

    @property
    def is_idle(self) -> bool:
        """True when no sequence is left."""
        return not self.running and not self.waiting

    @property
    def chosen(self) -> list[Sequence]:
        """The sequences of the step that was put together last."""
        return list(self._step.chosen)

    def sequences(self) -> Iterator[Sequence]:
        """All sequences, oldest first."""
        return chain(self.running, self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence behind all others of its priority."""
        needed = pages_for(sequence.max_tokens)
        if needed > self.pages.num_pages:
            raise ValueError(f"a sequence may need {needed} pages, there are {self.pages.num_pages}")
        most = (
            self.max_batch_tokens
            if sequence.sampler is not None
            else min(self.max_batch_tokens, self.max_outputs)
        )
        if self.needs_whole_sequences and sequence.max_tokens > most:
            raise ValueError(
                f"a sequence of {sequence.max_tokens} tokens does not fit a step of {most} as a whole"
            )
        age = time.perf_counter() + PRIORITY_SECONDS * sequence.priority
        sequence.rank = (age, self._num_arrivals)
        self._num_arrivals += 1
        sequence.state = "waiting"
        insort(self.waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> npt.NDArray[np.int32]:
        """Takes a sequence out of the queues; returns the pages that are empty now."""
        queue = self.running if sequence.state == "running" else self.waiting
        sequence.state = "finished"  # before the queues, as everywhere: `recover` goes by the state
        queue.remove(sequence)
        return self._free(sequence)

    def publish(self, sequence: Sequence) -> list[int]:
        """Lets others share the pages that a sequence has filled; returns those that are empty now."""
        return [] if self.prefix_cache is None else self.prefix_cache.publish(sequence)

    def schedule(self) -> Schedule:
        """Puts the next step together."""
        self._step.clear()
        if self.prefix_cache is not None:
            self.prefix_cache.begin_step()
        running = tuple(self.running)  # preemption changes the list
        prefilling = [sequence for sequence in running if not self._choose_decode(sequence)]
        if self.pacing is not None and self._step.chosen:
            self._step.limit_prompts(self.pacing.allowance(len(self._step.chosen)))
        self._choose_prompts(running, prefilling)
        self._admit()
        if not self._step.chosen:  # those for whom a reading from disk paused have made way since
            self._step.limit_prompts(self._step.max_tokens)
            everyone = tuple(self.running)
            self._choose_prompts(everyone, everyone)
        self._choose_drafts()
        return assemble(self._step.chosen, self._step.drafts, self._num_fast_tokens)

    def recover(self) -> None:
        """Makes queues and pages agree again after a step that ended anywhere with an exception.

        The step may have moved recurrent states on, or put kept ones in place: all start anew. Other pages get the
        same keys and values once more, but for those that are shared: what a table has beyond the computed tokens is
        taken away.
        """
        if self.num_state_slots:
            for sequence in (*self._step.chosen, *self.running):
                sequence.num_computed_tokens = 0
        members = {*self.running, *self.waiting}
        for sequence in members:
            if sequence.state != "running":
                sequence.take_pages()
        everyone = sorted((s for s in members if s.state != "finished"), key=_rank)
        self.running = [s for s in everyone if s.state == "running"]
        self.waiting = [s for s in everyone if s.state == "waiting"]
        for sequence in self.running:
            sequence.num_pages = min(sequence.num_pages, pages_for(sequence.num_computed_tokens))
            num_whole = sequence.num_computed_tokens // PAGE_TOKENS
            sequence.num_published_pages = min(sequence.num_published_pages, num_whole)
        if self.prefix_cache is not None:
            self.prefix_cache.recover()
        kept = self.prefix_cache.kept_ids if self.prefix_cache is not None else []
        tables = (s.page_ids[: s.num_pages].tolist() for s in self.running)
        self.pages.rebuild((page for table in tables for page in table), kept)

    # -- choosing ---------------------------------------------------------------------------------

    def _choose_decode(self, sequence: Sequence) -> bool:
        """Chooses a sequence that has one pending token; False when it has more."""
        if sequence.num_pending_tokens > 1:
            return False
        self._choose(sequence)
        return True

    def _choose_prompts(self, running: tuple[Sequence, ...], prefilling: SequenceOf[Sequence]) -> None:
        """Chooses sequences that have several pending tokens, but for those that wait for an older one's pages."""
        for sequence in prefilling:
            if not self._is_waiting_for(running[: running.index(sequence)], sequence):
                self._choose(sequence)

    def _is_waiting_for(self, older: SequenceOf[Sequence], sequence: Sequence) -> bool:
        """Takes what is there already for a running sequence; whether it waits for what an older one is computing."""
        cache = self.prefix_cache
        if cache is None or sequence.state != "running":
            return False
        return cache.attach(sequence, may_pause=bool(self._step.chosen)) or cache.is_coming(sequence, older)

    def _choose(self, sequence: Sequence) -> None:
        """Gives the sequence its share of what is left of the step, if pages can be had for it."""
        if sequence.state != "running":  # preempted while this step was put together
            return
        step = self._step
        num_tokens = min(sequence.num_pending_tokens, step.tokens_left, step.prompt_tokens_left)
        if self.prefix_cache is not None and self.prefix_cache.keeps_states:
            last = (sequence.num_computed_tokens + num_tokens) // PAGE_TOKENS * PAGE_TOKENS
            if last > sequence.num_computed_tokens:  # the state at the end of a page can be kept
                num_tokens = last - sequence.num_computed_tokens
        num_fast_tokens = self._num_fast_tokens(sequence)
        if num_fast_tokens:  # a run is of one kind
            num_tokens = min(num_tokens, num_fast_tokens)
        if sequence.wants_all_rows:
            num_tokens = num_outputs = min(num_tokens, step.outputs_left)
        else:
            num_outputs = int(num_tokens == sequence.num_pending_tokens)
            if num_outputs > step.outputs_left:
                num_tokens, num_outputs = num_tokens - 1, 0
        if self.needs_whole_sequences and num_tokens < sequence.num_pending_tokens:
            return
        if num_tokens < 1 or not self._reserve(sequence, sequence.num_computed_tokens + num_tokens):
            return
        if sequence.started_at is None:
            sequence.started_at = time.perf_counter()
        step.take(sequence, num_tokens, num_outputs)

    def _choose_drafts(self) -> None:
        """Gives drafted tokens what is left of the step and of the pages: nobody else gets less for them."""
        step = self._step
        for sequence, choice in step.chosen.items():
            draft, sequence.draft = sequence.draft, None
            if draft is None or choice != (1, 1) or sequence.num_pending_tokens != 1:
                continue
            count = min(draft.num_drafted, step.tokens_left, step.outputs_left)
            room = sequence.num_pages * PAGE_TOKENS - sequence.num_tokens
            if count > room:
                missing = pages_for(sequence.num_tokens + count) - sequence.num_pages
                added = min(missing, max(self.pages.num_free - self._num_promised(), 0))
                sequence.add_pages(self.pages.alloc(added))
                count = min(count, room + added * PAGE_TOKENS)
            if count >= 1:
                step.draft(sequence, draft.first(count))

    def _num_promised(self) -> int:
        """Pages that running sequences will need for the tokens that they have."""
        return sum(self._num_missing(s, self.running[:i]) for i, s in enumerate(self.running))

    def _num_missing(self, sequence: Sequence, older: SequenceOf[Sequence]) -> int:
        """Pages that a sequence will take from the free ones for the tokens that it has."""
        missing = pages_for(sequence.num_tokens) - sequence.num_pages
        if missing > 0 and self.prefix_cache is not None:
            missing -= self.prefix_cache.num_ahead(sequence, older)
        return max(missing, 0)

    def _num_fast_tokens(self, sequence: Sequence) -> int:
        """How many of its pending tokens, the next ones, are computed in fast arithmetic."""
        return max(num_fast_tokens(sequence) - sequence.num_computed_tokens, 0) if self.is_fast else 0

    def _admit(self) -> None:
        """Starts waiting sequences, in order, while all pages of their known tokens can be had."""
        while self.waiting and self._step.tokens_left and self._step.prompt_tokens_left:
            sequence = self.waiting[0]
            if not self._make_room(sequence):
                return
            sequence.state_slot = self._free_slot()
            sequence.state = "running"  # before the queues: `recover` goes by the state
            place = bisect(self.running, sequence.rank, key=_rank)
            self.running.insert(place, sequence)
            self.waiting.remove(sequence)
            if not self._is_waiting_for(self.running[:place], sequence):
                self._choose(sequence)

    def _make_room(self, sequence: Sequence) -> bool:
        """Whether the first waiting sequence can run now. Running ones that rank behind it make way."""
        place = bisect(self.running, sequence.rank, key=_rank)
        while (
            len(self.running) >= self._max_running
            or self._num_missing(sequence, self.running[:place]) > self.pages.num_free - self._num_promised()
        ):
            if len(self.running) <= place:
                return False
            self._preempt(self.running[-1])
        return True

    @property
    def _max_running(self) -> int:
        most = min(self.max_outputs, self.max_batch_tokens)
        return min(most, self.num_state_slots) if self.num_state_slots else most

    def _free_slot(self) -> int:
        """The lowest state slot that no running sequence has: its memory is the most likely to be committed."""
        taken = {sequence.state_slot for sequence in self.running}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    # -- pages ------------------------------------------------------------------------------------

    def _reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Extends the page table to `num_tokens` tokens, preempting younger sequences if it must."""
        missing = pages_for(num_tokens) - sequence.num_pages
        if missing <= 0:
            return True
        while self.pages.num_free < missing:
            youngest = self.running[-1]
            if youngest is sequence:
                return False
            self._preempt(youngest)
        sequence.add_pages(self.pages.alloc(missing))
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Sends the youngest running sequence back to the queue, without its pages."""
        self._step.give_back(sequence)
        sequence.state = "waiting"  # before the queues, as above
        insort(self.waiting, sequence, key=_rank)
        self.running.pop()
        sequence.num_preemptions += 1
        self.num_preemptions += 1
        self._free(sequence)

    def _free(self, sequence: Sequence) -> npt.NDArray[np.int32]:
        """Takes all pages from a sequence, the last one first, so that it is given up first; returns the empty ones."""
        return np.array(self.pages.free(sequence.take_pages()[::-1].tolist()), dtype=np.int32)


def _rank(sequence: Sequence) -> tuple[float, int]:
    return sequence.rank


def pages_for(num_tokens: int) -> int:
    """Pages that hold `num_tokens` tokens."""
    return -(-num_tokens // PAGE_TOKENS)

"""The engine: one step computes, samples and books the next tokens of all sequences that are under way."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Executor
from torchless.engine.beams import BeamGroup
from torchless.engine.draft_tree import DraftTree
from torchless.engine.kept_states import KeptStates
from torchless.engine.observer import Observer, StepTimes
from torchless.engine.output_rows import OutputRows, end_if_due
from torchless.engine.pacing import StepPacing
from torchless.engine.page_store import PageStore
from torchless.engine.pages import PageAllocator
from torchless.engine.prefix_cache import PrefixCache
from torchless.engine.scheduler import Run, Schedule, Scheduler
from torchless.engine.sequence import Sequence
from torchless.engine.speculation import Judgement, Speculation
from torchless.engine.stored_pages import StoredPages

__all__ = ["Engine", "StepResult"]


class StepResult(NamedTuple):
    """What a step did."""

    runs: list[Run]
    finished: list[Sequence]
    times: StepTimes

    @property
    def num_tokens(self) -> int:
        """Tokens that it computed."""
        return sum(run.num_tokens for run in self.runs)


class Engine:
    """Runs sequences through an executor, many at a time. Not thread-safe: one caller at a time.

    Attributes:
        observers: told of everything; may be extended at any time between steps.

    Example:
        engine = Engine(executor)
        engine.add(sequence)
        while sequence.finish_reason is None:
            engine.step()
    """

    def __init__(
        self,
        executor: Executor,
        speculation: Speculation | None = None,
        pacing: StepPacing | None = None,
        *,
        has_prefix_cache: bool = True,
        page_store: PageStore | None = None,
    ) -> None:
        """An engine without sequences.

        Args:
            has_prefix_cache: sequences that begin alike share pages, also one after another (`PrefixCache`). Without
                effect on executors that take whole sequences only, or have a recurrent state and keep none of it.
            page_store: where such pages are kept beyond this engine's life.
            speculation: drafts tokens, so that a step can yield several; None for one token a step. Of no use to
                executors that keep recurrent state or take whole sequences only.
            pacing: bounds how long prompts may hold up those that decode; None for no bound.
        """
        self.executor = executor
        self.speculation = speculation
        options = executor.options
        self.pages = PageAllocator(options.num_pages)
        self.prefix_cache = self._prefix_cache(page_store) if has_prefix_cache else None
        self.scheduler = Scheduler(
            self.pages,
            options.max_batch_tokens,
            options.max_outputs,
            executor.num_state_slots,
            needs_whole_sequences=executor.needs_whole_sequences,
            is_fast=options.fast,
            pacing=pacing,
            prefix_cache=self.prefix_cache,
        )
        self.observers: list[Observer] = [] if self.scheduler.pacing is None else [self.scheduler.pacing]
        self._computed_at = 0.0  # when the executor of this step was done, in seconds
        self._num_tidied = 0  # preemptions after which memory was tidied up; -1 after a step that broke off
        self._in_doubt: Sequence | None = None  # half-way through `_settle`
        self._no_logits = np.empty((0, executor.output_width), dtype=np.float32)

    def _prefix_cache(self, page_store: PageStore | None) -> PrefixCache | None:
        executor, options = self.executor, self.executor.options
        if executor.needs_whole_sequences or (executor.num_state_slots and not options.num_kept_states):
            return None
        if executor.num_state_slots:
            states = KeptStates(options.num_kept_states, executor)
            return PrefixCache(self.pages, is_fast=options.fast, states=states)
        stored = StoredPages(page_store, executor) if page_store is not None else None
        return PrefixCache(self.pages, is_fast=options.fast, stored=stored)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; it takes part from the next step that has room for it."""
        sequence.added_at = perf_counter()
        self.scheduler.add(sequence)
        for observer in self.observers:
            observer.added(self, sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence now, if it has not ended, and frees its pages."""
        if sequence.finish_reason is None:
            sequence.finish_reason = "cancelled"
        if sequence.group is not None:
            self._advance(sequence.group)  # which ends the others with it
        elif sequence.state in ("waiting", "running"):
            self._remove(sequence)
        elif self.speculation is not None:  # it ended in a step that broke off
            self.speculation.forget(sequence)
        self._tidy()
        for observer in self.observers:
            observer.cancelled(self, sequence)

    def step(self) -> StepResult:
        """One step of everything that is under way.

        An exception (also KeyboardInterrupt) leaves the engine usable once `recover` was called.
        """
        began = perf_counter()
        is_measured = self.speculation is not None and self.speculation.draft(self.scheduler.running)
        schedule = self.scheduler.schedule()
        scheduled = self._computed_at = perf_counter()
        rows, tokens = self._compute(schedule)
        picked = perf_counter()
        finished = self._post_process(schedule, rows, tokens)
        self._tidy()
        times = StepTimes(began, scheduled, self._computed_at, picked, perf_counter())
        return self._finish(StepResult(schedule.runs, finished, times), is_measured=is_measured)

    def recover(self) -> list[Sequence]:
        """Repairs the books after a step that raised. What the step had computed is computed again.

        A sequence that was being booked at that moment is cancelled, since its reader may have seen a part.

        Returns:
            The sequences that the error concerns: that one, or else all that took part in the step.
        """
        in_doubt, self._in_doubt = self._in_doubt, None
        if in_doubt is not None and in_doubt.finish_reason is None:
            in_doubt.finish_reason = "cancelled"
        if in_doubt is not None and in_doubt.finish_reason is not None:
            in_doubt.state = "finished"
        self.scheduler.recover()
        self._num_tidied = -1
        return self.scheduler.chosen if in_doubt is None else [in_doubt]

    # -- the parts of a step ----------------------------------------------------------------------

    def _compute(self, schedule: Schedule) -> tuple[OutputRows, list[int | None]]:
        """The logits of the step and the next token of each run, None where it has none or a draft decides.

        Where every run can pick from its largest logits, the executor is asked for no more.
        """
        if schedule.batch is None:
            return OutputRows(self._no_logits, None), []
        num_best = self._num_best(schedule)
        if num_best:
            rows = OutputRows(self._no_logits, self.executor.step_best(schedule.batch, num_best))
        else:
            rows = OutputRows(self.executor.step(schedule.batch), None)
        self._computed_at = perf_counter()
        return rows, [
            rows.pick(run.sequence, _last_row(run)) if _is_due(run) else None for run in schedule.runs
        ]

    def _num_best(self, schedule: Schedule) -> int:
        """How many of the largest logits of a row do for every run; 0 when one wants them all, or none does any."""
        most = num_outputs = 0
        for run in schedule.runs:
            if not run.num_outputs:
                continue
            num_outputs += run.num_outputs
            sampler = run.sequence.sampler
            needed = None if sampler is None or run.sequence.needs_whole_rows else sampler.num_best
            if needed is None:
                return 0
            most = max(most, needed)
        most = min(most, self.executor.output_width)
        return most if num_outputs and most <= self.executor.max_best(num_outputs) else 0

    def _post_process(self, schedule: Schedule, rows: OutputRows, tokens: list[int | None]) -> list[Sequence]:
        """Books the step; returns the sequences that it ended, whose pages are free or kept for others."""
        finished = []
        for run, token in zip(schedule.runs, tokens, strict=True):
            self._in_doubt = run.sequence
            if run.draft is None:
                self._settle(run, rows, token)
            else:
                self._settle_draft(run, run.draft, rows)
            emptied = self.scheduler.publish(run.sequence)
            if emptied:
                self._release(np.array(emptied, dtype=np.int32))
            if self.prefix_cache is not None:
                self.prefix_cache.keep_state(run.sequence)
            if run.sequence.finish_reason is not None and run.sequence.group is None:
                self._remove(run.sequence)
                finished.append(run.sequence)
            self._in_doubt = None
        for group in {run.sequence.group for run in schedule.runs}:
            if group is not None:
                finished += self._advance(group)
        return finished

    def _advance(self, group: BeamGroup) -> list[Sequence]:
        """Lets sequences that search together go on, once all can; returns them if they have ended."""
        copy_slots = None if self.executor.num_state_slots else self.executor.copy_slots
        self._release(np.array(group.advance(self.pages, copy_slots), dtype=np.int32))
        ended = [one for one in group.sequences if one.finish_reason and one.state in ("waiting", "running")]
        for sequence in ended:
            self._remove(sequence)
        return ended

    def _settle(self, run: Run, rows: OutputRows, token: int | None) -> None:
        """Books one run: its tokens are computed, its rows are kept or read, its new token is appended."""
        sequence = run.sequence
        first = sequence.num_computed_tokens
        if sequence.logits is not None:
            sequence.logits[first : first + run.num_outputs] = rows.of(run.first_output, run.num_outputs)
        elif sequence.wants_all_rows:
            rows.note_prompt(sequence, run.first_output, run.num_outputs)
        sequence.num_computed_tokens += run.num_tokens
        if token is not None and rows.append(sequence, token, _last_row(run)):
            self._rewind(sequence)
        end_if_due(sequence)

    def _settle_draft(self, run: Run, draft: DraftTree, rows: OutputRows) -> None:
        """Books a run with drafted tokens: picks tokens as ever, one after another, as long as they were drafted.

        What the sampler picks behind a node depends on that node's logits and on the tokens before it, which are those
        of plain decoding, so that it picks what it would have picked there. Keys and values of the nodes that were kept
        end up where a plain sequence has them; those of the others are never read.
        """
        sequence = run.sequence
        first = sequence.num_computed_tokens
        picked: list[tuple[int, int]] = []  # node, token behind it
        node: int | None = 0
        is_taken_back = False
        while node is not None:
            row = run.first_output + node
            token = rows.pick(sequence, row)
            if token is not None:
                picked.append((node, token))
                is_taken_back = rows.append(sequence, token, row)
            end_if_due(sequence)
            if token is None or is_taken_back or sequence.finish_reason is not None:
                break
            node = draft.child(node, token)
        path = [node for node, _ in picked]
        if path != list(range(len(path))):
            from_slots = first + np.array(path, dtype=np.int32)
            to_slots = first + np.arange(len(path), dtype=np.int32)
            self.executor.copy_slots(sequence.page_ids[: sequence.num_pages], from_slots, to_slots)
        sequence.num_computed_tokens = min(first + len(path), sequence.num_tokens - 1)
        if is_taken_back:
            self._rewind(sequence)
        assert self.speculation is not None
        self.speculation.judge(sequence, Judgement(draft, picked))

    def _rewind(self, sequence: Sequence) -> None:
        """Goes back with a sequence whose tokens were taken back. A state cannot: all is computed again."""
        if self.executor.num_state_slots:
            sequence.num_computed_tokens = 0
        emptied = self.pages.free(sequence.leave_published_pages())
        self._release(np.array(emptied, dtype=np.int32))

    def _finish(self, result: StepResult, *, is_measured: bool) -> StepResult:
        """Tells speculation and observers what the step did."""
        if is_measured and self.speculation is not None and result.runs:
            is_decoding = all(run.num_tokens == 1 or run.draft is not None for run in result.runs)
            seconds = result.times.booked - result.times.began
            self.speculation.observe(result.num_tokens, seconds, is_decoding=is_decoding)
        for observer in self.observers:
            observer.stepped(self, result)
        return result

    def _tidy(self) -> None:
        """Once nothing is under way: gives back the memory of pages that were taken away from their sequences."""
        if self._num_tidied != self.scheduler.num_preemptions and self.scheduler.is_idle:
            self._num_tidied = self.scheduler.num_preemptions
            self._release(np.array(self.pages.empty_ids, dtype=np.int32))

    def _remove(self, sequence: Sequence) -> None:
        """Takes an ended sequence out; gives the memory of pages that are empty now back to the operating system."""
        page_ids = self.scheduler.remove(sequence)
        if self.speculation is not None:
            self.speculation.forget(sequence)
        self._release(page_ids)

    def _release(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory of freed pages back to the operating system."""
        if len(page_ids):
            self.executor.release_pages(page_ids)


def _is_due(run: Run) -> bool:
    """Whether a run ends with the last token that is known and has its next one picked, by no draft."""
    sequence = run.sequence
    return (
        sequence.sampler is not None
        and run.draft is None
        and run.num_outputs > 0
        and run.num_tokens == sequence.num_pending_tokens
    )


def _last_row(run: Run) -> int:
    """The output row of a run's last token."""
    return run.first_output + run.num_outputs - 1

"""The engine: one step computes, samples and books the next tokens of all sequences that are under way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Executor
from torchless.constraints.constraint import masked
from torchless.engine.pages import PageAllocator
from torchless.engine.scheduler import Run, Schedule, Scheduler
from torchless.engine.sequence import Sequence
from torchless.errors import GrammarError
from torchless.sampling.chain import Sampler

__all__ = ["Engine", "StepResult"]


class StepResult(NamedTuple):
    """What a step did."""

    num_tokens: int
    finished: list[Sequence]


class Engine:
    """Runs sequences through an executor, many at a time. Not thread-safe: one caller at a time.

    Example:
        engine = Engine(executor)
        engine.add(sequence)
        while sequence.finish_reason is None:
            engine.step()
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        options = executor.options
        self.pages = PageAllocator(options.num_pages)
        self.scheduler = Scheduler(
            self.pages,
            options.max_batch_tokens,
            options.max_outputs,
            executor.num_state_slots,
            needs_whole_sequences=executor.needs_whole_sequences,
            is_fast=options.fast,
        )
        self._in_doubt: Sequence | None = None  # half-way through `_settle`
        self._no_logits = np.empty((0, executor.output_width), dtype=np.float32)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; it takes part from the next step that has room for it."""
        self.scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence now, if it has not ended, and frees its pages."""
        if sequence.finish_reason is None:
            sequence.finish_reason = "cancelled"
        if sequence.state in ("waiting", "running"):
            self._release(self.scheduler.remove(sequence))

    def step(self) -> StepResult:
        """One step of everything that is under way.

        An exception (also KeyboardInterrupt) leaves the engine usable once `recover` was called.
        """
        schedule = self.scheduler.schedule()
        logits, tokens = self._compute(schedule)
        finished = self._post_process(schedule, logits, tokens)
        return StepResult(sum(run.num_tokens for run in schedule.runs), finished)

    def recover(self) -> None:
        """Repairs the books after a step that raised. What the step had computed is computed again.

        A sequence that was being booked at that moment is cancelled, since its reader may have seen a part.
        """
        in_doubt, self._in_doubt = self._in_doubt, None
        if in_doubt is not None and in_doubt.finish_reason is None:
            in_doubt.finish_reason = "cancelled"
        if in_doubt is not None and in_doubt.finish_reason is not None:
            in_doubt.state = "finished"
        self.scheduler.recover()

    # -- the parts of a step ----------------------------------------------------------------------

    def _compute(self, schedule: Schedule) -> tuple[npt.NDArray[np.float32], list[int | None]]:
        """The logits of the step and the next token of each run, None where it has none.

        Where every run can pick from its largest logits, the executor is asked for no more and no row is returned.
        """
        if schedule.batch is None:
            return self._no_logits, []
        num_best = self._num_best(schedule)
        if num_best:
            ids, values = self.executor.step_best(schedule.batch, num_best)
            return self._no_logits, [
                sampler.pick_best(ids[row], values[row], history) if sampler is not None else None
                for sampler, row, history in map(_sampling, schedule.runs)
            ]
        logits = self.executor.step(schedule.batch)
        return logits, [_pick(run, logits) for run in schedule.runs]

    def _num_best(self, schedule: Schedule) -> int:
        """How many of the largest logits of a row do for every run; 0 when one wants them all, or none does any."""
        most = num_outputs = 0
        for run in schedule.runs:
            if not run.num_outputs:
                continue
            num_outputs += run.num_outputs
            sampler = run.sequence.sampler
            needs_row = run.sequence.digest is not None or run.sequence.constraint is not None
            needed = None if sampler is None or needs_row else sampler.num_best
            if needed is None:
                return 0
            most = max(most, needed)
        most = min(most, self.executor.output_width)
        return most if num_outputs and most <= self.executor.max_best(num_outputs) else 0

    def _post_process(
        self, schedule: Schedule, logits: npt.NDArray[np.float32], tokens: list[int | None]
    ) -> list[Sequence]:
        """Books the step; returns the sequences that it ended, whose pages are free again."""
        finished = []
        for run, token in zip(schedule.runs, tokens, strict=True):
            self._in_doubt = run.sequence
            self._settle(run, logits[run.first_output : run.first_output + run.num_outputs], token)
            if run.sequence.finish_reason is not None:
                self._release(self.scheduler.remove(run.sequence))
                finished.append(run.sequence)
            self._in_doubt = None
        return finished

    @staticmethod
    def _settle(run: Run, rows: npt.NDArray[np.float32], token: int | None) -> None:
        """Books one run: its tokens are computed, its rows are kept or hashed, its new token is appended."""
        sequence = run.sequence
        if sequence.logits is not None:
            first = sequence.num_computed_tokens
            sequence.logits[first : first + run.num_outputs] = rows
        sequence.num_computed_tokens += run.num_tokens
        if token is not None:
            if sequence.digest is not None:
                sequence.digest.update(rows.data)
            _append(sequence, token)
        if sequence.failure is not None:
            sequence.finish_reason = "cancelled"
        if sequence.finish_reason is None and sequence.is_at_end:
            sequence.finish_reason = "length"

    def _release(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory of freed pages back to the operating system."""
        if len(page_ids):
            self.executor.release_pages(page_ids)


def _sampling(run: Run) -> tuple[Sampler | None, int, npt.NDArray[np.int32]]:
    """The sampler of a run's next token, if it has one, its row of logits, and the tokens before it."""
    sequence = run.sequence
    return sequence.sampler if run.num_outputs else None, run.first_output, sequence.history


def _pick(run: Run, logits: npt.NDArray[np.float32]) -> int | None:
    """The next token of a run from its row of logits; None where it has none, or where its constraint failed."""
    sampler, row, history = _sampling(run)
    if sampler is None:
        return None
    constraint = run.sequence.constraint
    if constraint is None:
        return sampler.pick(logits[row], history)
    try:
        return sampler.pick(masked(logits[row], constraint.mask()), history)
    except GrammarError as error:  # this sequence's own; the others go on
        run.sequence.failure = error
        return None


def _append(sequence: Sequence, token: int) -> None:
    """Appends a picked token and tells whoever waits for it; the constraint begins with what may follow."""
    sequence.append(token)
    constraint = sequence.constraint
    if constraint is not None:
        try:
            constraint.accept(token)
        except GrammarError as error:
            sequence.failure = error
            return
    if sequence.accept is not None:
        sequence.finish_reason = sequence.accept(token)
    if constraint is None or sequence.finish_reason is not None:
        return
    if constraint.must_stop:
        sequence.finish_reason = "stop"
    elif not sequence.is_at_end:
        constraint.prepare()

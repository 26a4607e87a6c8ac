"""Counts what an engine does, cheaply: a few additions for a step and for each of its sequences."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from torchless.metrics import SIZES, TIMES, Metrics, Recorder

if TYPE_CHECKING:
    from torchless.engine.engine import Engine, StepResult
    from torchless.engine.sequence import Sequence

__all__ = ["Meter"]


class _Track:
    """What is remembered of a sequence under way."""

    __slots__ = ("has_started", "last_at", "num_tokens")

    def __init__(self, num_tokens: int) -> None:
        self.has_started = False
        self.last_at = 0.0  # of its last token; 0.0 before the first
        self.num_tokens = num_tokens


class Meter:
    """An `Observer` that keeps `Metrics`. Written by the thread that steps; any thread may read.

    A lock, held for a few additions, lets readers see a step as a whole: counts of half a step would go back later,
    which Prometheus takes for a restart.

    Attributes:
        num_generated: tokens that were picked so far.
    """

    def __init__(self) -> None:
        self._tracks: dict[Sequence, _Track] = {}
        self._num_requests = self._num_finished = self._num_cancelled = 0
        self._num_prompt = self._num_computed = self._num_steps = 0
        self.num_generated = 0
        self._num_drafted = self._num_kept = 0
        self._queue, self._first, self._between, self._step = (Recorder(TIMES) for _ in range(4))
        self._batch_sequences, self._batch_tokens = Recorder(SIZES), Recorder(SIZES)
        self._size = (0, 0)  # sequences and tokens of the last steps
        self._num_alike = 0  # how many of them had that size and are not recorded yet
        self._last_at = -1.0  # when the last step was over, in seconds
        self._counting = threading.Lock()

    def added(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`."""
        with self._counting:
            self._num_requests += 1
            self._tracks[sequence] = _Track(sequence.num_tokens)

    def stepped(self, engine: Engine, result: StepResult) -> None:
        """See `Observer`."""
        with self._counting:
            self._count_step(result)

    def _count_step(self, result: StepResult) -> None:
        """The path of sequences that got a token in the last step too is kept short."""
        now = result.times.booked
        before, self._last_at = self._last_at, now
        num_computed = num_steady = 0
        tracks = self._tracks
        for run in result.runs:
            sequence = run.sequence
            num_computed += run.num_tokens
            track = tracks[sequence]
            num_new = sequence.num_tokens - track.num_tokens
            if num_new == 1 and track.last_at == before:
                num_steady += 1
                track.num_tokens += 1
                track.last_at = now
            else:
                self._note(sequence, track, num_new, now)
        if num_steady:
            self._between.add(now - before, num_steady)
            self.num_generated += num_steady
        self._num_steps += 1
        self._num_computed += num_computed
        self._step.add(now - result.times.began)
        size = (len(result.runs), num_computed)
        if size == self._size:  # as in most steps: counted, and recorded with the next that differs
            self._num_alike += 1
        else:
            self._record_sizes()
            self._size, self._num_alike = size, 1
        for sequence in result.finished:
            self._num_finished += 1
            self._forget(sequence)

    def cancelled(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`."""
        with self._counting:
            if sequence in self._tracks:
                self._num_cancelled += 1
                self._forget(sequence)

    def close(self) -> None:
        """See `Observer`."""
        self._tracks.clear()

    def metrics(self, engine: Engine) -> Metrics:
        """What was counted so far. While a step is under way, that of the steps before."""
        with self._counting:
            return self._metrics(engine)

    def _metrics(self, engine: Engine) -> Metrics:
        scheduler, cache = engine.scheduler, engine.scheduler.prefix_cache
        return Metrics(
            num_requests=self._num_requests,
            num_finished=self._num_finished,
            num_cancelled=self._num_cancelled,
            num_prompt_tokens=self._num_prompt,
            num_generated_tokens=self.num_generated,
            num_drafted_tokens=self._num_drafted,
            num_kept_tokens=self._num_kept,
            num_computed_tokens=self._num_computed,
            num_steps=self._num_steps,
            num_cached_tokens=0 if cache is None else cache.num_cached_tokens,
            num_restored_tokens=0 if cache is None else cache.num_restored_tokens,
            num_preemptions=scheduler.num_preemptions,
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_pages_in_use=engine.pages.num_pages - engine.pages.num_free,
            num_pages_kept=engine.pages.num_kept,
            num_pages=engine.pages.num_pages,
            queue_seconds=self._queue.snapshot(),
            time_to_first_token_seconds=self._first.snapshot(),
            time_between_tokens_seconds=self._between.snapshot(),
            step_seconds=self._step.snapshot(),
            batch_sequences=self._batch_sequences.snapshot(self._size[0], self._num_alike),
            batch_tokens=self._batch_tokens.snapshot(self._size[1], self._num_alike),
        )

    def _note(self, sequence: Sequence, track: _Track, num_new: int, now: float) -> None:
        """A step of a sequence that began, went on after a pause, or got several tokens or none."""
        if not track.has_started:
            track.has_started = True
            self._num_prompt += sequence.num_prompt_tokens
            if sequence.started_at is not None:
                self._queue.add(sequence.started_at - sequence.added_at)
        if num_new > 0:  # fewer than before where tokens were taken back: those that replace them count once
            if track.last_at:
                self._between.add((now - track.last_at) / num_new, num_new)
            else:
                self._first.add(now - sequence.added_at)
            track.last_at = now
            track.num_tokens += num_new
            self.num_generated += num_new

    def _record_sizes(self) -> None:
        if self._num_alike:
            self._batch_sequences.add(self._size[0], self._num_alike)
            self._batch_tokens.add(self._size[1], self._num_alike)

    def _forget(self, sequence: Sequence) -> None:
        del self._tracks[sequence]
        self._num_drafted += sequence.num_drafted_tokens
        self._num_kept += sequence.num_kept_tokens

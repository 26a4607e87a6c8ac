"""A trace of an engine's steps that Perfetto (ui.perfetto.dev) and chrome://tracing open.

The format is Google's "Trace Event Format", its JSON array form: one event a line, and the closing bracket may be
missing, so that a process that was killed leaves a file that opens too. Times are microseconds since the trace began,
in whole nanoseconds, so that rounding lets no slice outlast the one around it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from heapq import heappop, heappush
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from torchless.engine.engine import Engine, StepResult
    from torchless.engine.observer import StepTimes
    from torchless.engine.sequence import Sequence

__all__ = ["Tracer"]

_log = logging.getLogger("torchless")

_ENGINE_TRACK = 1
_FIRST_REQUEST_TRACK = 100
_PARTS = ("schedule", "compute", "sample", "book")
_FLUSH_SECONDS = 1.0


class _Track:
    """A sequence's place in the trace.

    Attributes:
        number: of the request.
        lane: the track that it has to itself while it is under way.
        waits_since: clock since which it has been in the queue, in seconds; None while it runs.
        num_preemptions: that were noticed so far.
    """

    __slots__ = ("lane", "num_preemptions", "number", "waits_since")

    def __init__(self, number: int, lane: int, waits_since: float) -> None:
        self.number = number
        self.lane = lane
        self.waits_since: float | None = waits_since
        self.num_preemptions = 0


class Tracer:
    """An `Observer` that writes what it hears to a file.

    One track shows the steps and their parts; one for each request that is under way its time in the queue and its
    share of every step; counters show pages, sequences and tokens.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        """Takes over an open file. `name` is what the process is called."""
        self._file = file
        self._began = perf_counter()
        self._pid = os.getpid()
        self._tracks: dict[Sequence, _Track] = {}
        self._num_requests = 0
        self._free_lanes: list[int] = []  # a heap
        self._num_lanes = 0
        self._num_preemptions = 0
        self._flushed_at = 0.0
        self._is_first = True
        self._is_broken = False
        self._last_clock = 0.0  # the latest that was heard of, in seconds
        file.write("[\n")
        self._name("process_name", 0, name)
        self._name("thread_name", _ENGINE_TRACK, "engine steps")

    def added(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`."""
        if self._free_lanes:
            lane = heappop(self._free_lanes)
        else:
            lane = _FIRST_REQUEST_TRACK + self._num_lanes
            self._num_lanes += 1
            self._name("thread_name", lane, f"request lane {self._num_lanes}")
        self._num_requests += 1
        self._tracks[sequence] = _Track(self._num_requests, lane, sequence.added_at)

    def stepped(self, engine: Engine, result: StepResult) -> None:
        """See `Observer`."""
        times = result.times
        self._last_clock = times.booked
        self._step(result, times)
        if engine.scheduler.num_preemptions != self._num_preemptions:
            self._num_preemptions = engine.scheduler.num_preemptions
            self._note_preemptions(times.scheduled)
        for run in result.runs:
            sequence, num_tokens = run.sequence, run.num_tokens
            track = self._tracks[sequence]
            if track.waits_since is not None:
                self._slice("queue", track.lane, track.waits_since, times.began, f'"request":{track.number}')
                track.waits_since = None
            is_decoding = run.draft is not None or (num_tokens == 1 and sequence.num_computed_tokens > 1)
            kind = "decode" if is_decoding else "prefill"
            arguments = f'"request":{track.number},"tokens":{num_tokens},"outputs":{run.num_outputs}'
            self._slice(
                kind,
                track.lane,
                times.began,
                times.booked,
                f'{arguments},"computed":{sequence.num_computed_tokens}',
            )
        for sequence in result.finished:
            self._leave(sequence, f"ended: {sequence.finish_reason}", times.booked)
        scheduler, pages = engine.scheduler, engine.pages
        self._count("pages", times.booked, f'"in use":{pages.num_pages - pages.num_free}')
        counts = f'"running":{len(scheduler.running)},"waiting":{len(scheduler.waiting)}'
        self._count("sequences", times.booked, counts)
        self._count("tokens in a step", times.booked, f'"tokens":{result.num_tokens}')
        if times.booked - self._flushed_at > _FLUSH_SECONDS:
            self._flushed_at = times.booked
            self._flush()

    def cancelled(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`."""
        if sequence in self._tracks:
            self._leave(sequence, "cancelled", max(self._last_clock, sequence.added_at))

    def close(self) -> None:
        """Ends the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.write("\n]\n")
                self._file.close()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    # -- parts ------------------------------------------------------------------------------------

    def _step(self, result: StepResult, times: StepTimes) -> None:
        arguments = f'"sequences":{len(result.runs)},"tokens":{result.num_tokens}'
        self._slice("step", _ENGINE_TRACK, times.began, times.booked, arguments)
        for name, begin, end in zip(_PARTS, times, times[1:], strict=False):
            self._slice(name, _ENGINE_TRACK, begin, end, "")

    def _note_preemptions(self, clock: float) -> None:
        for sequence, track in self._tracks.items():
            if sequence.num_preemptions > track.num_preemptions:
                track.num_preemptions = sequence.num_preemptions
                self._instant("preempted", track.lane, clock, track.number)
                track.waits_since = clock if track.waits_since is None else track.waits_since

    def _leave(self, sequence: Sequence, what: str, clock: float) -> None:
        track = self._tracks.pop(sequence)
        if track.waits_since is not None:
            self._slice("queue", track.lane, track.waits_since, clock, f'"request":{track.number}')
        self._instant(what, track.lane, clock, track.number)
        heappush(self._free_lanes, track.lane)

    # -- events -----------------------------------------------------------------------------------

    def _slice(self, name: str, track: int, begin: float, end: float, arguments: str) -> None:
        duration = max(self._nanoseconds(end) - self._nanoseconds(begin), 0)
        self._write(name, "X", track, begin, f'"dur":{_microseconds(duration)},"args":{{{arguments}}}')

    def _instant(self, name: str, track: int, clock: float, number: int) -> None:
        self._write(name, "i", track, clock, f'"s":"t","args":{{"request":{number}}}')

    def _count(self, name: str, clock: float, series: str) -> None:
        self._write(name, "C", _ENGINE_TRACK, clock, f'"args":{{{series}}}')

    def _name(self, kind: str, track: int, name: str) -> None:
        self._write(kind, "M", track, self._began, f'"args":{{"name":{json.dumps(name)}}}')

    def _write(self, name: str, phase: str, track: int, clock: float, rest: str) -> None:
        if self._is_broken:
            return
        separator = "" if self._is_first else ",\n"
        self._is_first = False
        try:
            self._file.write(
                f'{separator}{{"name":"{name}","ph":"{phase}","ts":{_microseconds(self._nanoseconds(clock))},'
                f'"pid":{self._pid},"tid":{track},{rest}}}'
            )
        except OSError as error:  # a full disk is no reason to stop working
            self._is_broken = True
            _log.warning("the trace ends here: %s", error)

    def _nanoseconds(self, clock: float) -> int:
        return round((clock - self._began) * 1e9)


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"

"""What each sequence of an engine is at, as it looks from outside while the engine works."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchless.engine.engine import Engine

__all__ = ["SequenceStatus", "snapshot"]


@dataclass(frozen=True, slots=True)
class SequenceStatus:
    """A sequence at one moment.

    Attributes:
        is_running: it takes part in steps; else it waits for pages or its turn.
        num_prompt_tokens: tokens of its prompt.
        num_computed_tokens: leading tokens, of prompt and answer, whose keys and values are in the cache.
        num_cached_tokens: of the prompt's, those that were there already.
        num_generated_tokens: tokens of its answer so far.
        max_tokens: prompt and answer together at which it ends at the latest.
        num_pages: pages of the cache that it holds.
        num_preemptions: how often these were taken away.
        seconds: since it was asked for.
    """

    is_running: bool
    num_prompt_tokens: int
    num_computed_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    max_tokens: int
    num_pages: int
    num_preemptions: int
    seconds: float


def snapshot(engine: Engine) -> list[SequenceStatus]:
    """All sequences, running ones first, each oldest first.

    From any thread, without waiting for a step: the queues are copied at once, and the numbers of a sequence may be
    those of two neighbouring steps.
    """
    scheduler, now = engine.scheduler, time.perf_counter()
    running, waiting = list(scheduler.running), list(scheduler.waiting)
    is_running = {id(sequence): True for sequence in running}
    waiting = [
        sequence for sequence in waiting if id(sequence) not in is_running
    ]  # moved between the two copies
    return [
        SequenceStatus(
            is_running=id(sequence) in is_running,
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_computed_tokens=sequence.num_computed_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_generated_tokens=max(0, sequence.num_tokens - sequence.num_prompt_tokens),
            max_tokens=sequence.max_tokens,
            num_pages=sequence.num_pages,
            num_preemptions=sequence.num_preemptions,
            seconds=max(0.0, now - (sequence.added_at or now)),
        )
        for sequence in (*running, *waiting)
    ]

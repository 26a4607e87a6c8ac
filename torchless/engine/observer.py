"""Who listens to an engine: what happens in a step, told once it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torchless.engine.engine import Engine, StepResult
    from torchless.engine.sequence import Sequence

__all__ = ["Observer", "StepTimes"]


class StepTimes(NamedTuple):
    """When the parts of a step were over: clock (`time.perf_counter`), in seconds.

    Attributes:
        began: the step was asked for.
        scheduled: its batch was put together.
        computed: the executor had the logits.
        picked: each run had its next token.
        booked: all was written down.
    """

    began: float
    scheduled: float
    computed: float
    picked: float
    booked: float


class Observer(Protocol):
    """Hears of everything an engine does. Called by the thread that steps, which waits: be quick, raise nothing."""

    def added(self, engine: Engine, sequence: Sequence) -> None:
        """A sequence was queued."""
        ...

    def stepped(self, engine: Engine, result: StepResult) -> None:
        """A step is over. `StepResult.finished` have left the engine."""
        ...

    def cancelled(self, engine: Engine, sequence: Sequence) -> None:
        """A sequence left the engine before its end."""
        ...

    def close(self) -> None:
        """Nothing will follow."""
        ...

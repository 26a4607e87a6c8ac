"""What listens to a loaded model's engine: its meter, and where they are wanted a trace and a status file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torchless.engine.metering import Meter
from torchless.engine.tracing import Tracer
from torchless.errors import InvalidRequestError
from torchless.status import StatusFile

if TYPE_CHECKING:
    from torchless.engine.engine import Engine
    from torchless.loading import LoadedModel

__all__ = ["observe", "open_trace", "trace_path"]


def trace_path(trace: Any) -> Path | None:
    """The argument `trace` of `load`, checked."""
    if trace is None:
        return None
    try:
        return Path(trace)
    except TypeError:
        raise InvalidRequestError(f"trace must be the path of a file to write, got {trace!r}") from None


def open_trace(path: Path | None) -> TextIO | None:
    """The file of a trace, before any weight is loaded."""
    if path is None:
        return None
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"the trace {path} cannot be written: {error.strerror or error}") from None


def observe(loaded: LoadedModel, engine: Engine, trace: TextIO | None, *, is_announced: bool) -> Meter:
    """Lets everything listen; returns the meter.

    Args:
        trace: where a trace is written, if one is wanted.
        is_announced: `torchless ps` lists the model.
    """
    meter = Meter()
    engine.observers.append(meter)
    path = os.fspath(loaded.source.path)
    if trace is not None:
        engine.observers.append(Tracer(trace, f"torchless {path}"))
    if is_announced:
        executor = loaded.executor
        engine.observers.append(
            StatusFile(
                str(Path(path).resolve()),
                lambda: sum(
                    executor.memory_bytes().get(kind, 0)
                    for kind in ("weights", "scratch", "kv_used", "state")
                ),
                meter,
            )
        )
    return meter

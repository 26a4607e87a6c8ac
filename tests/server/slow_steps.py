"""Slow steps of a model that is otherwise too fast for a person to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def slow_steps(llm: Any, seconds: float = 0.03) -> Iterator[None]:
    """Inside, every step takes at least so long: a request that joins all of them sees to that."""

    def wait(ids: Any, logits: Any) -> None:
        time.sleep(seconds)

    future = llm.submit("Once", max_tokens=400, ignore_eos=True, processors=(wait,))
    try:
        yield
    finally:
        future.cancel()

"""Reasoning that a model writes before its answer, as parts of the answer that a server sends."""

from __future__ import annotations

from collections.abc import Iterable

from torchless.server.parts import Part, Reader, Reasoning
from torchless.text.reasoning import ReasoningSplitter, ReasoningStyle, Span

__all__ = ["ThinkReader"]


class ThinkReader:
    """A `Reader` that takes the reasoning off an answer's front and gives the rest to another.

    Args:
        inner: reads what follows.
        style: the marks around the reasoning.
        is_open: the prompt ends within the reasoning, whose first mark is therefore not part of the answer.
    """

    def __init__(self, inner: Reader, style: ReasoningStyle, *, is_open: bool) -> None:
        self._inner = inner
        self._splitter = ReasoningSplitter(style, starts_inside=is_open)

    def push(self, text: str) -> list[Part]:
        """See `Reader`."""
        return self._parts(self._splitter.push(text))

    def finish(self) -> list[Part]:
        """See `Reader`."""
        return [*self._parts(self._splitter.flush()), *self._inner.finish()]

    def _parts(self, spans: Iterable[Span]) -> list[Part]:
        parts: list[Part] = []
        for span in spans:
            parts += [Reasoning(span.text)] if span.is_reasoning else self._inner.push(span.text)
        return parts

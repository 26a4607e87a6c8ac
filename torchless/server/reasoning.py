"""Reasoning that a model writes before its answer, between marks such as ``<think>`` and ``</think>``."""

from __future__ import annotations

from torchless.server.marks import MarkFinder
from torchless.server.parts import Part, Reader, Reasoning

__all__ = ["PAIRS", "ThinkReader", "find_pair"]

PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
"""Marks of the families that are known."""


def find_pair(template: str | None) -> tuple[str, str] | None:
    """The marks that a model's chat template knows; None where it knows none."""
    for begin, end in PAIRS:
        if template and end in template:
            return begin, end
    return None


class ThinkReader:
    """A `Reader` that takes the reasoning off an answer's front and gives the rest to another.

    Args:
        inner: reads what follows.
        marks: around the reasoning.
        is_open: the prompt ends within the reasoning, whose first mark is therefore not part of the answer.
    """

    def __init__(self, inner: Reader, marks: tuple[str, str], *, is_open: bool) -> None:
        self._inner = inner
        self._begin, self._end = marks
        self._finder: MarkFinder | None = MarkFinder([self._end]) if is_open else None
        self._front: str | None = None if is_open else ""  # text that may be the first mark
        self._space = ""  # white space that only stands beside marks
        self._has_thought = False
        self._is_behind = False

    def push(self, text: str) -> list[Part]:
        """See `Reader`."""
        if self._front is not None:
            self._front += text
            begun = self._front.lstrip()
            if begun.startswith(self._begin):
                text, self._front = begun[len(self._begin) :], None
                self._finder = MarkFinder([self._end])
            elif not begun or self._begin.startswith(begun):
                return []
            else:
                text, self._front = self._front, None
        if self._finder is None:
            return self._behind(text)
        thought = self._thought(self._finder.push(text))
        if self._finder.found is None:
            return thought
        rest, self._finder, self._space, self._is_behind = self._finder.rest, None, "", True
        return [*thought, *self._behind(rest)]

    def finish(self) -> list[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        if self._front:
            parts += self._inner.push(self._front)
        elif self._finder is not None:
            parts += self._thought(self._finder.flush())
        return [*parts, *self._inner.finish()]

    def _thought(self, text: str) -> list[Part]:
        """Reasoning, without the white space that stands between it and its marks."""
        text = self._space + text if self._has_thought else text.lstrip()
        kept = text.rstrip()
        self._space = text[len(kept) :]
        if not kept:
            return []
        self._has_thought = True
        return [Reasoning(kept)]

    def _behind(self, text: str) -> list[Part]:
        if self._is_behind:
            text = text.lstrip()
            self._is_behind = not text
        return self._inner.push(text) if text else []

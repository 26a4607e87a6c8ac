"""Finding marks in a text that comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MarkFinder"]


class MarkFinder:
    """Splits a text at the first of several marks; what may be the start of one is held back.

    Example:
        >>> finder = MarkFinder(["<call>"])
        >>> finder.push("ab<ca"), finder.push("ll>cd"), finder.found, finder.rest
        ('ab', '', '<call>', 'cd')
    """

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(marks)
        self._longest = max(map(len, marks), default=0)
        self._held = ""
        self.found: str | None = None
        self.rest = ""  # behind the mark that was found

    def push(self, text: str) -> str:
        """The text that is certain to come before any mark. Once one was `found`, all that follows is `rest`."""
        if self.found is not None:
            self.rest += text
            return ""
        held = self._held + text
        places = [(held.find(mark), -len(mark), mark) for mark in self._marks if mark in held]
        if places:
            place, _, mark = min(places)
            self.found, self.rest, self._held = mark, held[place + len(mark) :], ""
            return held[:place]
        keep = next(
            (
                size
                for size in range(min(self._longest - 1, len(held)), 0, -1)
                if any(mark.startswith(held[-size:]) for mark in self._marks)
            ),
            0,
        )
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """What was held back, when no more text follows."""
        held, self._held = self._held, ""
        return held

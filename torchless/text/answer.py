"""The text of an answer as its tokens come: up to a stop string, and without what is banned."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from torchless.text.stream import StopMatcher, TextStream

__all__ = ["AnswerText"]


class _Mark(NamedTuple):
    """Everything as it was before a token."""

    stream: tuple[bool, tuple[bytes, int]]
    matcher: tuple[object, ...]
    num_pieces: int
    num_certain: int


class AnswerText:
    """Turns tokens into pieces of text, and finds the token in which a banned string began.

    Text that may be the start of a stop string or of a banned one is held back. Where there are banned strings, tokens
    may be taken back, so that text is certain up to the first token that may be: the one in which the text that is held
    back now began, or, as going back there opens again what was held back then, an earlier one.

    Attributes:
        num_tokens: tokens that were pushed and not taken back.
        num_certain_tokens: of those, the leading ones that cannot be taken back any more.

    Example: see `torchless.generation.Generation`.
    """

    def __init__(self, stream: TextStream, matcher: StopMatcher, num_ids_with_text: int) -> None:
        """Args: num_ids_with_text: ids from here on have no text: the model may have padded its vocabulary."""
        self._stream = stream
        self._matcher = matcher
        self._num_ids_with_text = num_ids_with_text
        self._pieces: list[str] = []
        self.num_tokens = self.num_certain_tokens = 0
        self._marks: list[_Mark | None] = []  # of tokens that may still be taken back
        self._starts: list[int] = []  # of each token, how many characters begin before it
        self._is_flushed = False

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text."""
        return self._matcher.matched

    @property
    def num_pieces(self) -> int:
        """How many pieces of text are certain."""
        if self.num_certain_tokens == self.num_tokens:
            return len(self._pieces)
        return self._mark_of(self.num_certain_tokens).num_pieces

    def text(self, first_piece: int = 0) -> str:
        """The text that is certain, from one of its pieces on."""
        return "".join(self._pieces[first_piece : self.num_pieces])

    def push(self, token_id: int) -> int | None:
        """Adds a token. Where that completes a banned string, says in which token it began: `rewind` to it."""
        if self._matcher.has_banned:
            self._add_mark()
        self.num_tokens += 1
        if token_id < self._num_ids_with_text:
            self._emit(self._stream.push(token_id))
        if self._matcher.banned_at is not None:
            return self._token_at(self._matcher.banned_at)
        self.num_certain_tokens = self._count_certain()
        return None

    def rewind(self, num_tokens: int) -> None:
        """Takes tokens back until so many are left, at least `num_certain_tokens`."""
        mark = self._mark_of(num_tokens)
        self._stream.restore(mark.stream)
        self._matcher.restore(mark.matcher)
        del self._pieces[mark.num_pieces :], self._marks[num_tokens:], self._starts[num_tokens:]
        self.num_tokens, self.num_certain_tokens = num_tokens, mark.num_certain

    def flush(self) -> None:
        """Lets out the text that was held back because more might have followed."""
        if self._is_flushed:
            return
        self._is_flushed = True
        self._emit(self._stream.flush())
        self._pieces.append(self._matcher.flush())
        self.num_certain_tokens = self.num_tokens

    def _emit(self, text: str) -> None:
        if text:
            text = self._matcher.push(text)
        if text:
            self._pieces.append(text)

    def _count_certain(self) -> int:
        is_open = self._matcher.num_held or self._stream.has_part
        if not (is_open and self._matcher.has_banned) or self.stop is not None:
            return self.num_tokens
        first_open = self._token_at(self._matcher.num_characters - self._matcher.num_held)
        return self._mark_of(first_open).num_certain

    def _add_mark(self) -> None:
        for index in range(self.num_certain_tokens - 1, -1, -1):
            if self._marks[index] is None:
                break
            self._marks[index] = None
        state = self._stream.state(), self._matcher.state()
        self._marks.append(_Mark(*state, len(self._pieces), self.num_certain_tokens))
        self._starts.append(self._matcher.num_characters + self._stream.has_part)

    def _mark_of(self, token: int) -> _Mark:
        mark = self._marks[token]
        assert mark is not None, "a token that is certain has no mark"
        return mark

    def _token_at(self, character: int) -> int:
        """The token in which a character began."""
        return bisect_right(self._starts, character) - 1

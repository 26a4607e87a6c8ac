"""Text that arrives token by token: whole characters only, and stop strings found across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from torchless.errors import InvalidRequestError
from torchless.text.tokenizer import Tokenizer

__all__ = ["StopMatcher", "TextStream"]


class TextStream:
    """Decodes ids one by one. The pieces, joined, are what `Tokenizer.decode` gives for all ids at once.

    A piece never ends inside a character: bytes that may be the start of one wait for the next token. Bytes
    that cannot be UTF-8 become U+FFFD.

    Example:
        >>> from torchless.text.tokenizer import Tokenizer
        >>> metadata = {
        ...     "tokenizer.ggml.model": "llama",
        ...     "tokenizer.ggml.tokens": ["<unk>", "<0xC3>", "<0xA9>"],
        ...     "tokenizer.ggml.scores": [0.0, 0.0, 0.0],
        ...     "tokenizer.ggml.token_type": [2, 6, 6],
        ...     "tokenizer.ggml.add_bos_token": False,
        ... }
        >>> stream = TextStream(Tokenizer.from_metadata(metadata))
        >>> stream.push(1), stream.push(2), stream.flush()
        ('', 'é', '')
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, continuation: bool = False
    ) -> None:
        """See `Tokenizer.decode` for `skip_special_tokens` and `continuation`."""
        self._tokenizer = tokenizer
        self._special = not skip_special_tokens
        self._strip = tokenizer.strips_leading_space and not continuation
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes, maybe none.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        piece = self._tokenizer.token_bytes(token_id, special=self._special)
        if self._strip and piece:
            self._strip = False
            piece = piece.removeprefix(b" ")
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed, else nothing."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Ends a text before the first stop string in it, however the text is cut into pieces.

    The first stop string is the one that is complete first; of two that end at the same character the longer
    one. Text that may be the start of a stop string is held back until that is decided.

    Attributes:
        matched: the stop string that was found, None while there is none.

    Example:
        >>> matcher = StopMatcher(["</answer>"])
        >>> matcher.push("42</ans"), matcher.push("wer> more"), matcher.matched
        ('42', '', '</answer>')
    """

    def __init__(self, stops: str | Sequence[str]) -> None:
        """Raises InvalidRequestError for a stop that is empty or not a string."""
        given: tuple[object, ...] = (stops,) if isinstance(stops, str) else tuple(stops)
        self._stops = tuple(stop for stop in given if isinstance(stop, str) and stop)
        if len(self._stops) != len(given):
            raise InvalidRequestError(f"stop: expected strings that are not empty, found {list(given)!r}")
        self._fallbacks = [_fallbacks(stop) for stop in self._stops]
        self._lengths = [0] * len(self._stops)  # How much of each stop string the text ends with.
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The text that is certain to come before any stop string; nothing once one was found."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        for position in range(len(self._held), len(held)):
            stop = self._advance(held[position])
            if stop is not None:
                self.matched, self._held = stop, ""
                return held[: position + 1 - len(stop)]
        keep = len(held) - max(self._lengths)
        self._held = held[keep:]
        return held[:keep]

    def flush(self) -> str:
        """The text that was held back, when no more follows."""
        held, self._held = self._held, ""
        self._lengths = [0] * len(self._stops)
        return held

    def _advance(self, character: str) -> str | None:
        """One step of the Knuth-Morris-Pratt search for each stop; the longest that is now complete."""
        complete: str | None = None
        for index, stop in enumerate(self._stops):
            length = self._lengths[index]
            while length and stop[length] != character:
                length = self._fallbacks[index][length - 1]
            if stop[length] == character:
                length += 1
            self._lengths[index] = length
            if length == len(stop) and (complete is None or length > len(complete)):
                complete = stop
        return complete


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`, the length of the longest shorter prefix that it ends with."""
    table = [0] * len(stop)
    length = 0
    for index in range(1, len(stop)):
        while length and stop[index] != stop[length]:
            length = table[length - 1]
        if stop[index] == stop[length]:
            length += 1
        table[index] = length
    return table

"""Text that arrives token by token: whole characters only, stop strings and banned ones found across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from torchless.errors import InvalidRequestError
from torchless.text.search import StringSearch
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

    @property
    def has_part(self) -> bool:
        """Whether it holds bytes of a character that is not complete."""
        return bool(self._decoder.getstate()[0])

    def state(self) -> tuple[bool, tuple[bytes, int]]:
        """All that `restore` needs to go on from here."""
        return self._strip, self._decoder.getstate()

    def restore(self, state: tuple[bool, tuple[bytes, int]]) -> None:
        """Goes back to where `state` was called."""
        self._strip, decoder_state = state
        self._decoder.setstate(decoder_state)


class StopMatcher:
    """Ends a text before the first stop string in it, however the text is cut into pieces, and finds banned strings.

    The first stop string is the one that is complete first; of two that end at the same character the longer
    one. Text that may be the start of a stop string or of a banned one is held back until that is decided.

    Attributes:
        matched: the stop string that was found, None while there is none.
        banned_at: where in the text (characters from its start) a banned string began that is complete now, before any
            stop string; None while there is none. What follows it is not looked at: `restore` an earlier state.
        num_characters: characters that were pushed.

    Example:
        >>> matcher = StopMatcher(["</answer>"])
        >>> matcher.push("42</ans"), matcher.push("wer> more"), matcher.matched
        ('42', '', '</answer>')
        >>> matcher = StopMatcher([], banned=["bad"])
        >>> matcher.push("too b"), matcher.push("ad"), matcher.banned_at
        ('too ', '', 4)
    """

    def __init__(self, stops: str | Sequence[str], banned: Sequence[str] = ()) -> None:
        """Raises InvalidRequestError for a stop or a banned string that is empty or not a string."""
        self._stops = StringSearch(_strings("stop", stops))
        self._banned = StringSearch(_strings("banned", banned))
        self._held = ""
        self.num_characters = 0
        self.matched: str | None = None
        self.banned_at: int | None = None

    @property
    def has_banned(self) -> bool:
        """Whether any string is banned."""
        return bool(self._banned)

    @property
    def num_held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> str:
        """The text that is certain to stay; nothing once a stop string or a banned one was found."""
        if self.matched is not None or self.banned_at is not None:
            return ""
        num_held, held = len(self._held), self._held + text
        begin = self.num_characters - num_held
        self.num_characters += len(text)
        if not self._stops and not self._banned:
            return text
        for position in range(num_held, len(held)):
            stop = self._stops.advance(held[position])
            banned = self._banned.advance(held[position])
            if stop is not None:
                self.matched, self._held = stop, ""
                return held[: position + 1 - len(stop)]
            if banned is not None:
                self.banned_at = begin + position + 1 - len(banned)
                return ""
        keep = len(held) - max(self._stops.longest, self._banned.longest)
        self._held = held[keep:]
        return held[:keep]

    def flush(self) -> str:
        """The text that was held back, when no more follows."""
        held, self._held = self._held, ""
        self._stops.reset()
        self._banned.reset()
        return held

    def state(self) -> tuple[object, ...]:
        """All that `restore` needs to go on from here."""
        return self._stops.lengths, self._banned.lengths, self._held, self.num_characters, self.matched

    def restore(self, state: tuple[Any, ...]) -> None:
        """Goes back to where `state` was called."""
        self._stops.lengths, self._banned.lengths, self._held, self.num_characters, self.matched = state
        self.banned_at = None


def _strings(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    several: tuple[object, ...] = (given,) if isinstance(given, str) else tuple(given)
    found = tuple(string for string in several if isinstance(string, str) and string)
    if len(found) != len(several):
        raise InvalidRequestError(f"{name}: expected strings that are not empty, found {list(several)!r}")
    return found

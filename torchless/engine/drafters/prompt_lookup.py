"""Drafts by looking back: what followed the last few tokens when they stood in the text before.

Costs next to nothing and needs no second model. Right where texts repeat themselves: code that is edited, summaries,
quotations, tables. (A. Saxena, "Prompt lookup decoding", 2023.)

For each sequence and each length of an n-gram there is a table from n-gram to the places where it ended, the last few.
Tables grow as the sequence does: O(1) for a token.
"""

from __future__ import annotations

import numpy as np

from torchless.engine.drafters import DrafterContext, Guess
from torchless.engine.sequence import Sequence

__all__ = ["PromptLookup", "build"]

LENGTHS = (5, 3, 2)
"""Lengths of n-grams, the longest first: the longer the match, the likelier it goes on."""

PLACES = 5
"""How many places are kept of an n-gram: the last ones, of which each may go on differently."""

_TAIL = 8  # tokens that are compared to see whether a sequence was cut back and went on otherwise

_SOURCES = {
    (length, rank): [(f"{length}-gram", rank, token) for token in range(3)]
    for length in LENGTHS
    for rank in range(2)
}
"""By length of the match and rank of the guess, for the first tokens: how often each is right is counted apart."""


def build(context: DrafterContext) -> PromptLookup:
    """The drafter; it needs nothing."""
    return PromptLookup()


class PromptLookup:
    """A `Drafter` that copies from what the sequence has already."""

    is_free = True

    def __init__(self) -> None:
        self._indexes: dict[Sequence, _Index] = {}

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        """See `Drafter`."""
        guesses = []
        for sequence in sequences:
            index = self._indexes.get(sequence)
            if index is None:
                index = self._indexes[sequence] = _Index()
            index.extend(sequence)
            guesses.append(index.find(num_tokens, width))
        return guesses

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter`."""
        self._indexes.pop(sequence, None)

    def close(self) -> None:
        """See `Drafter`."""
        self._indexes.clear()


class _Index:
    """N-grams of one sequence.

    Attributes:
        tokens: those that are indexed.
        places: for each length, n-gram -> positions behind it, the last one last.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.places: list[dict[tuple[int, ...], list[int]]] = [{} for _ in LENGTHS]

    def extend(self, sequence: Sequence) -> None:
        """Indexes what is new; if the sequence was cut back since, what it lost stays in the tables and is skipped."""
        tokens, end = self.tokens, sequence.num_tokens
        begin = min(len(tokens), end)
        if tokens[max(begin - _TAIL, 0) : begin] != sequence.tokens[max(begin - _TAIL, 0) : begin].tolist():
            differs = sequence.tokens[:begin] != np.array(tokens[:begin], np.int32)
            begin = int(differs.argmax())
        del tokens[begin:]
        tokens += sequence.tokens[begin:end].tolist()
        for length, places in zip(LENGTHS, self.places, strict=True):
            for stop in range(max(begin + 1, length), end + 1):
                found = places.setdefault(tuple(tokens[stop - length : stop]), [])
                found.append(stop)
                if len(found) > PLACES:
                    del found[0]

    def find(self, num_tokens: int, width: int) -> list[Guess]:
        """What followed the longest n-gram that the sequence ends with, the latest place first."""
        tokens, end = self.tokens, len(self.tokens)
        guesses: list[Guess] = []
        seen: set[int] = set()  # first tokens of guesses
        for length, places in zip(LENGTHS, self.places, strict=True):
            if end < length:
                continue
            key = tuple(tokens[end - length :])
            for place in reversed(places.get(key, ())):
                if len(guesses) == width:
                    return guesses
                if place >= end or tokens[place] in seen or tokens[place - length : place] != list(key):
                    continue
                seen.add(tokens[place])
                found = self._continuation(place, num_tokens)
                sources = _SOURCES[length, min(len(guesses), 1)]
                guesses.append(Guess(found, [sources[min(i, 2)] for i in range(len(found))]))
        return guesses

    def _continuation(self, place: int, num_tokens: int) -> list[int]:
        """The tokens from a place on; where the text ends, it repeats itself from there."""
        found = self.tokens[place : place + num_tokens]
        period = len(found)
        while len(found) < num_tokens:
            found.append(found[-period])
        return found

"""Drafts by looking back: what followed the last few tokens when they stood in the text before.

Costs next to nothing and needs no second model. Right where texts repeat themselves: code that is edited, summaries,
quotations, tables. (A. Saxena, "Prompt lookup decoding", 2023.)

Nothing is kept for a sequence: comparing all its tokens with the last one takes a microsecond for every few thousand,
which is less than an index costs to keep, and nothing while nobody looks.
"""

from __future__ import annotations

import numpy as np

from torchless.engine.drafters import DrafterContext, Guess
from torchless.engine.sequence import Sequence

__all__ = ["PromptLookup", "build"]

LENGTHS = (5, 3, 2)
"""Lengths of n-grams, the longest first: the longer the match, the likelier it goes on."""

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

    def draft(self, sequences: list[Sequence], num_tokens: int, width: int) -> list[list[Guess]]:
        """See `Drafter`."""
        return [_look_back(sequence, num_tokens, width) for sequence in sequences]

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter`."""

    def close(self) -> None:
        """See `Drafter`."""


def _look_back(sequence: Sequence, num_tokens: int, width: int) -> list[Guess]:
    """What followed the longest n-gram that the sequence ends with, the latest place first."""
    tokens = sequence.history
    last = len(tokens) - 1
    places = np.flatnonzero(tokens[:last] == tokens[last])  # where the last token stood before
    matches = []  # (length, places where an n-gram of this length ends), the longest last
    for length in range(2, LENGTHS[0] + 1):
        places = places[places >= length - 1]
        if not len(places):
            break
        places = places[tokens[places - (length - 1)] == tokens[last - (length - 1)]]
        if len(places) and length in LENGTHS:
            matches.append((length, places))
    guesses: list[Guess] = []
    seen: set[int] = set()  # first tokens of guesses
    for length, ends in reversed(matches):
        for end in ends[: -1 - 4 * width : -1].tolist():
            first = int(tokens[end + 1])
            if first in seen:
                continue
            seen.add(first)
            sources = _SOURCES[length, min(len(guesses), 1)]
            found = tokens[end + 1 : end + 1 + num_tokens].tolist()
            period = len(found)
            while len(found) < num_tokens:  # where the text ends, it goes on as it did from there
                found.append(found[-period])
            guesses.append(Guess(found, [sources[min(i, 2)] for i in range(num_tokens)]))
            if len(guesses) == width:
                return guesses
    return guesses

"""Strings looked for in a text that arrives character by character (Knuth, Morris and Pratt 1977)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["StringSearch"]


class StringSearch:
    """Finds the first place where one of several strings ends.

    Attributes:
        lengths: how much of each string the text ends with. Together they are the whole state: who puts back an earlier
            copy goes on from there.

    Example:
        >>> search = StringSearch(["ab", "bc"])
        >>> [search.advance(character) for character in "acb"], search.longest
        ([None, None, None], 1)
        >>> search.advance("c")
        'bc'
    """

    def __init__(self, strings: Iterable[str]) -> None:
        """Args: strings: none of them empty."""
        self._strings = tuple(strings)
        self._fallbacks = [_fallbacks(string) for string in self._strings]
        self.lengths: Sequence[int] = (0,) * len(self._strings)

    def __bool__(self) -> bool:
        return bool(self._strings)

    @property
    def longest(self) -> int:
        """How many characters at the end of the text may be the start of one of the strings."""
        return max(self.lengths, default=0)

    def reset(self) -> None:
        """Forgets the text."""
        self.lengths = (0,) * len(self._strings)

    def advance(self, character: str) -> str | None:
        """Goes on by one character; the longest string that ends with it. Not to be called again once one did."""
        complete: str | None = None
        lengths = list(self.lengths)
        for index, string in enumerate(self._strings):
            length = lengths[index]
            while length and string[length] != character:
                length = self._fallbacks[index][length - 1]
            if string[length] == character:
                length += 1
            lengths[index] = length
            if length == len(string) and (complete is None or length > len(complete)):
                complete = string
        self.lengths = lengths
        return complete


def _fallbacks(string: str) -> list[int]:
    """For each prefix, the length of the longest shorter prefix that it ends with."""
    table = [0] * len(string)
    length = 0
    for index in range(1, len(string)):
        while length and string[index] != string[length]:
            length = table[length - 1]
        if string[index] == string[length]:
            length += 1
        table[index] = length
    return table

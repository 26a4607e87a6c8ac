"""The tokens that a text from outside must not become in a chat, and where a text spells them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torchless.text.tokenizer import Tokenizer

__all__ = ["GuardedTokens", "Span"]

# What marks turns, whatever the file calls it: DeepSeek's folder calls <\uff5cUser\uff5c> an ordinary addition.
_CONTROL = re.compile(r"<[|\uff5c].*[|\uff5c]>", re.DOTALL)
# Tags of reasoning, calls and their results that a file declares as part of any text, such as Qwen's <tool_response>.
_TAG = re.compile(
    r"[<\[].*(think|thought|reason|tool|function|arg_(key|value)).*[>\]]", re.DOTALL | re.IGNORECASE
)
# What a model itself writes in an answer. Not <|tool|> or <tool_response>: others speak there.
_ANSWER_TAG = re.compile(
    r"[<\[].*(think|thought|reason|(tool|function)[\W_]*calls?|tool[\W_]*sep|python_tag|arg_(key|value)).*[>\]]",
    re.DOTALL | re.IGNORECASE,
)


class Span(NamedTuple):
    """A token's text within another: ``text[start:stop]`` spells the token `token`."""

    start: int
    stop: int
    token: int


@dataclass(frozen=True, slots=True)
class GuardedTokens:
    """The control tokens of a tokenizer and its tags of reasoning and tools.

    Attributes:
        ids: id by text.
        library_ids: those that plain text does not become anyway (`Tokenizer.encode` without `parse_special`).
        answer_texts: tags that the model itself writes, which its own earlier answers therefore may hold.
        tag_texts: tags that the file declares as part of any text.
        first_letters: what the tokens begin with, as a regular expression; None where there is no token.
    """

    ids: dict[str, int]
    library_ids: frozenset[int]
    answer_texts: frozenset[str]
    tag_texts: frozenset[str]
    first_letters: re.Pattern[str] | None
    _described: dict[int, Any] = field(repr=False)
    _lengths: tuple[int, ...] = field(repr=False)
    _tails: frozenset[str] = field(repr=False)
    _inner: str = field(repr=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> GuardedTokens:
        """Those of a tokenizer."""
        described = {
            index: token
            for index, token in tokenizer.added_tokens.items()
            if token.content
            and (token.special or _CONTROL.fullmatch(token.content) or _TAG.fullmatch(token.content))
        }
        ids = {str(token.content): index for index, token in described.items()}
        letters = "".join(sorted({re.escape(text[0]) for text in ids}))
        return cls(
            ids,
            frozenset(index for index, token in described.items() if token.special),
            frozenset(text for text in ids if _ANSWER_TAG.fullmatch(text)),
            frozenset(
                text
                for text, index in ids.items()
                if not (described[index].special or _CONTROL.fullmatch(text))
            ),
            re.compile(f"[{letters}]") if letters else None,
            described,
            tuple(sorted({len(text) for text in ids}, reverse=True)),
            frozenset(text[cut:] for text in ids for cut in range(1, len(text))),
            "\0".join(text[1:-1] for text in ids),
        )

    def find(self, text: str) -> list[Span]:
        """Where a text spells tokens: the leftmost ones, of several at one place the longest, none across another."""
        if self.first_letters is None:
            return []
        spans: list[Span] = []
        end = 0
        for match in self.first_letters.finditer(text):
            start = match.start()
            if start < end:
                continue
            for length in self._lengths:
                index = self.ids.get(text[start : start + length])
                if index is not None and self._stands_alone(index, text, start, start + length):
                    end = start + length
                    spans.append(Span(start, end, index))
                    break
        return spans

    def widen(self, span: Span, text: str, begin: int) -> Span:
        """The span with the white space that belongs to its token, from `begin` at the earliest."""
        start, stop, index = span
        described = self._described[index]
        while described.rstrip and stop < len(text) and _is_space(text[stop]):
            stop += 1
        while described.lstrip and start > begin and _is_space(text[start - 1]):
            start -= 1
        return Span(start, stop, index)

    def may_be_part(self, text: str) -> bool:
        """Whether a text may complete a token that stands around it or begins before it: ``end`` in ``<|end|>``."""
        if text and text in self._inner:
            return True
        return any(text[:length] in self._tails for length in range(1, min(len(text), self._lengths[0]) + 1))

    def _stands_alone(self, index: int, text: str, start: int, stop: int) -> bool:
        """Whether a token that must be a word of its own is one here."""
        if not self._described[index].single_word:
            return True
        around = text[max(0, start - 1) : start] + text[stop : stop + 1]
        return not any(letter.isalnum() or letter == "_" for letter in around)


def _is_space(letter: str) -> bool:
    """Unicode's white space; Python counts four separators of ASCII among it."""
    return letter.isspace() and letter not in "\x1c\x1d\x1e\x1f"

"""Marks in what a chat template is given, by which its own text can be told from text from outside.

A mark is a character of Unicode's private use that occurs nowhere else. It goes behind every character with which a
token could begin, and so breaks what spells one: the tokens of the rendered text are the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torchless.errors import TemplateError
from torchless.text.guarded_tokens import GuardedTokens

__all__ = ["InputMarker", "pick_mark"]

_ANSWER_ROLES = frozenset(("assistant", "model", "gpt"))
_ANSWER_KEYS = frozenset(("content", "reasoning", "reasoning_content", "thinking"))
_OWN_ROLES = frozenset(("system", "developer"))
# Templates may make tokens of these: '<|' + message['role'] + '|>'.
_ROLES = _ANSWER_ROLES | _OWN_ROLES | {"user", "tool", "function", "observation", "ipython", "environment"}


class InputMarker:
    """Puts marks into strings, however deep in lists and mappings they lie.

    Args:
        tokens: what must not come from outside.
        literals: strings that the template's expressions name.
        mark: the character.
        spares_literals: leave texts that the template looks for as they are, but for control tokens.
    """

    def __init__(
        self, tokens: GuardedTokens, literals: frozenset[str], mark: str, spares_literals: bool
    ) -> None:
        self._tokens = tokens
        self._literals = literals
        self._mark = mark
        spared = _spared(tokens, literals) if spares_literals else set()
        self._plain = _any_of(spared)
        self._own = _any_of(spared | tokens.tag_texts)
        self._answer = _any_of(spared | tokens.answer_texts)

    def messages(self, messages: list[Any]) -> list[Any]:
        """Messages with marks; an answer of the model keeps its tags, and a system message those of plain text."""
        return [self._message(message) for message in messages]

    def value(self, value: Any) -> Any:
        """A value with marks in every string of it."""
        return self._marked(value, self._plain)

    def _message(self, message: Mapping[Any, Any]) -> dict[Any, Any]:
        role = message.get("role")
        keys, kept = (
            (_ANSWER_KEYS, self._answer)
            if role in _ANSWER_ROLES
            else (frozenset(("content",)), self._own if role in _OWN_ROLES else self._plain)
        )
        marked = {
            self.value(key): self._marked(value, kept if key in keys else self._plain)
            for key, value in message.items()
        }
        return {**marked, "role": role} if role in _ROLES else marked

    def _marked(self, value: Any, kept: re.Pattern[str] | None) -> Any:
        if isinstance(value, str):
            return self._marked_text(value, kept)
        if isinstance(value, Mapping):
            return {self.value(key): self._marked(item, kept) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._marked(item, kept) for item in value])
        return value

    def _marked_text(self, text: str, kept: re.Pattern[str] | None) -> str:
        letters, mark = self._tokens.first_letters, self._mark
        if letters is None or (text in self._literals and not letters.search(text)):
            return text  # a word that the template compares with, such as "function"

        def put(match: re.Match[str]) -> str:
            if kept is not None and kept.match(text, match.start()):
                return match[0]
            return (mark if match[0] in self._tokens.ids else "") + match[0] + mark

        marked = letters.sub(put, text)
        front = len(text) - len(text.lstrip())
        if not marked.startswith(mark, front) and self._tokens.may_be_part(text.strip()):
            marked = marked[:front] + mark + marked[front:]
        return marked


def pick_mark(*values: Any) -> str:
    """A character of private use that occurs in no string of the values, neither as it is nor as ``\\uXXXX``.

    Raises:
        TemplateError: there is none left.
    """
    text = "\n".join(_strings(values))
    lowered = text.lower() if "\\u" in text else ""
    for number in range(0xE000, 0xF900):
        if chr(number) not in text and escaped(chr(number)) not in lowered:
            return chr(number)
    raise TemplateError(
        "the messages hold all 6400 characters of Unicode's first private use area; leave one of them out"
    )


def escaped(mark: str) -> str:
    """A mark as JSON in ASCII and Python's `repr` write it."""
    return f"\\u{ord(mark):04x}"


def _spared(tokens: GuardedTokens, literals: frozenset[str]) -> set[str]:
    """What the template looks for in texts, from where a token could begin; nothing that is part of a control token."""
    assert tokens.first_letters is not None
    found = {text[match.start() :] for text in literals for match in tokens.first_letters.finditer(text)}
    control = [text for text in tokens.ids if text not in tokens.tag_texts]
    return {
        text
        for text in found
        if len(text) > 1 and not any(token.startswith(text) or text.startswith(token) for token in control)
    }


def _any_of(texts: set[str] | frozenset[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)

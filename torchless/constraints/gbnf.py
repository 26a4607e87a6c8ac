"""GBNF, the grammars of llama.cpp, in the library's dialect of Lark.

Rules that never lead to themselves are regular: they become terminals, which the library's lexer sees whole. The others
become rules.
Source: the description of the format, grammars/README.md in llama.cpp.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from torchless.errors import GrammarError

__all__ = ["gbnf_to_lark"]

_MAX_LENGTH = 1 << 20
_MAX_DEPTH = 100
_MAX_REPEAT = 2000
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_REPEAT = re.compile(r"\{[ \t]*(\d*)[ \t]*(,?)[ \t]*(\d*)[ \t]*\}")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([tnr\\"\[\]]))')
_LETTERS = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass
class _Node:
    """Part of a rule: ``text`` (a terminal's Lark), ``rule`` (a name), ``sequence``, ``choice`` or ``repeat``."""

    kind: str
    text: str = ""
    parts: list[_Node] = field(default_factory=list)


def gbnf_to_lark(source: str) -> str:
    """Translates a grammar whose first symbol is ``root``.

    Raises:
        GrammarError: it is not GBNF; the message has the line.
    """
    if len(source) > _MAX_LENGTH:
        raise GrammarError(f"the grammar has {len(source)} characters, at most {_MAX_LENGTH} are allowed")
    rules = _Reader(source).rules()
    if "root" not in rules:
        raise GrammarError("the grammar has no rule root; name the rule that everything starts from root")
    for name, node in rules.items():
        for used in _names(node):
            if used not in rules:
                raise GrammarError(f"the rule {name} refers to {used}, which is not there")
    for name in sorted(rules.keys() - _productive(rules)):
        raise GrammarError(f"the rule {name} never ends: each way through it leads to itself again")
    terminals = _regular(rules)
    numbers = {name: f"{'T' if name in terminals else 'r'}{index}" for index, name in enumerate(rules)}
    lines = [f"start: {numbers['root']}"]
    lines += [f"{numbers[name]}: {_lark(node, numbers)}" for name, node in rules.items()]
    return "\n".join(lines)


# -- reading --------------------------------------------------------------------------------------


class _Reader:
    """Reads rules; `position` is where it stands."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self._depth = 0

    def rules(self) -> dict[str, _Node]:
        rules: dict[str, _Node] = {}
        self._skip(lines=True)
        while self.position < len(self.source):
            name = self._match(_NAME)
            if name is None:
                raise self._error("expected the name of a rule")
            self._skip()
            if not self._take("::="):
                raise self._error(f"expected ::= behind {name}")
            self._skip(lines=True)
            if name in rules:
                raise self._error(f"the rule {name} is there twice")
            rules[name] = self._choice(is_nested=False)
            if self.position < len(self.source) and self.source[self.position] not in "\r\n":
                raise self._error("expected the end of the rule")
            self._skip(lines=True)
        return rules

    def _choice(self, is_nested: bool) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"groups lie in each other more than {_MAX_DEPTH} deep")
        options = [self._sequence(is_nested)]
        while self._take("|"):
            self._skip(lines=True)
            options.append(self._sequence(is_nested))
        self._depth -= 1
        return options[0] if len(options) == 1 else _Node("choice", parts=options)

    def _sequence(self, is_nested: bool) -> _Node:
        parts: list[_Node] = []
        while True:
            self._skip(lines=is_nested)
            node = self._element()
            if node is None:
                return parts[0] if len(parts) == 1 else _Node("sequence", parts=parts)
            self._skip(lines=is_nested)
            parts.append(self._repeated(node, is_nested))

    def _element(self) -> _Node | None:
        character = self.source[self.position : self.position + 1]
        if character == '"':
            return _Node("text", self._literal())
        if character == "[":
            return _Node("text", self._class())
        if self._take("."):
            return _Node("text", "/(?s:.)/")
        if self._take("("):
            node = self._choice(is_nested=True)
            if not self._take(")"):
                raise self._error("expected )")
            return node
        if character in ("<", "!"):
            raise self._error("tokens in a grammar (<...>) are not supported; write their text")
        name = self._match(_NAME)
        return None if name is None else _Node("rule", name)

    def _repeated(self, node: _Node, is_nested: bool) -> _Node:
        while True:
            character = self.source[self.position : self.position + 1]
            if character and character in "*+?":
                self.position += 1
                node = _Node("repeat", character, [node])
            elif character == "{":
                node = _Node("repeat", self._counts(), [node])
            else:
                return node
            self._skip(lines=is_nested)

    def _counts(self) -> str:
        found = _REPEAT.match(self.source, self.position)
        if found is None or not (found[1] or found[3]):
            raise self._error("expected a repetition such as {2}, {2,} or {2,5}")
        low = int(found[1] or 0)
        high = int(found[3]) if found[3] else None if found[2] else low
        if max(low, high or 0) > _MAX_REPEAT or (high is not None and high < low):
            raise self._error(f"expected counts in order, up to {_MAX_REPEAT}")
        self.position = found.end()
        return f"{{{low},{'' if high is None else high}}}"

    def _literal(self) -> str:
        self.position += 1
        characters = []
        while not self._take('"'):
            characters.append(self._character())
        return json.dumps("".join(characters), ensure_ascii=False)

    def _class(self) -> str:
        self.position += 1
        text = "[^" if self._take("^") else "["
        is_empty = True
        while not self._take("]"):
            first = last = self._character()
            if self.source[self.position : self.position + 1] == "-" and not self.source.startswith(
                "-]", self.position
            ):
                self.position += 1
                last = self._character()
            if last < first:
                raise self._error("expected a range in order")
            text += f"\\u{{{ord(first):x}}}-\\u{{{ord(last):x}}}"
            is_empty = False
        if is_empty:
            raise self._error("expected characters between [ and ]")
        return f"/{text}]/"

    def _character(self) -> str:
        character = self.source[self.position : self.position + 1]
        if not character or character in "\r\n":
            raise self._error("the text or character class does not end")
        if character != "\\":
            self.position += 1
            return character
        found = _ESCAPE.match(self.source, self.position)
        if found is None:
            raise self._error(f"unknown escape {self.source[self.position : self.position + 2]!r}")
        self.position = found.end()
        if found[4]:
            return _LETTERS.get(found[4], found[4])
        code = int(found[1] or found[2] or found[3], 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise self._error(f"{found[0]} is no character")
        return chr(code)

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.source, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[0]

    def _take(self, text: str) -> bool:
        is_there = self.source.startswith(text, self.position)
        self.position += len(text) * is_there
        return is_there

    def _skip(self, lines: bool = False) -> None:
        self._match(_SPACE_AND_LINES if lines else _SPACE)

    def _error(self, complaint: str) -> GrammarError:
        line = self.source.count("\n", 0, self.position) + 1
        found = self.source[self.position : self.position + 20]
        return GrammarError(f"grammar, line {line}: {complaint}, found {found!r}")


# -- writing --------------------------------------------------------------------------------------


def _names(node: _Node) -> list[str]:
    return [node.text] if node.kind == "rule" else [name for part in node.parts for name in _names(part)]


def _regular(rules: dict[str, _Node]) -> set[str]:
    """Rules from which no way leads back to a rule on it: all whose rules are regular, from the leaves on."""
    uses = {name: set(_names(node)) for name, node in rules.items()}
    regular: set[str] = set()
    while more := {name for name in uses.keys() - regular if uses[name] <= regular}:
        regular |= more
    return regular


def _productive(rules: dict[str, _Node]) -> set[str]:
    """Rules that some finite text matches."""
    found: set[str] = set()
    while more := {name for name in rules.keys() - found if _ends(rules[name], found)}:
        found |= more
    return found


def _ends(node: _Node, found: set[str]) -> bool:
    if node.kind == "rule":
        return node.text in found
    if node.kind == "repeat" and (node.text in "*?" or node.text.startswith("{0,")):
        return True
    ends = (_ends(part, found) for part in node.parts)
    return any(ends) if node.kind == "choice" else all(ends)


def _lark(node: _Node, numbers: dict[str, str]) -> str:
    """A part in Lark's words, in brackets where it needs them."""
    if node.kind == "text":
        return node.text
    if node.kind == "rule":
        return numbers[node.text]
    parts = [_lark(part, numbers) for part in node.parts]
    if node.kind == "repeat":
        return f"({parts[0]}){node.text}"
    if node.kind == "choice":
        return "(" + " | ".join(parts) + ")"
    return " ".join(parts) or '""'

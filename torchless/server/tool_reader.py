"""Reads calls of tools out of an answer as it comes, for styles that put marks around them.

A call comes as a whole, once it can be read. What cannot be read stays text, and a note says why.
"""

from __future__ import annotations

from torchless.server.marks import MarkFinder
from torchless.server.parts import Note, Part, Text
from torchless.server.tool_styles import MalformedCallError, Schemas, ToolStyle

__all__ = ["ToolReader"]


class ToolReader:
    """A `Reader` for one style.

    Args:
        style: how the model writes calls.
        schemas: the tools that there are.
        parallel: several calls may be made; otherwise those behind the first are left out, and a note says so.
    """

    def __init__(self, style: ToolStyle, schemas: Schemas, *, parallel: bool = True) -> None:
        self._style, self._schemas, self._parallel = style, schemas, parallel
        self._finder: MarkFinder | None = MarkFinder(style.begins)  # None: within a call
        self._begin = ""
        self._body = ""
        self._searched = 0  # characters of the body that hold no end
        self._space = ""  # white space behind a call, which may be between two
        self._has_begun = False
        self._has_called = False
        self._is_text = False  # from here on everything is

    def push(self, text: str) -> list[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        while text:
            if self._is_text:
                parts += self._as_text(text)
                break
            text = self._push_body(text, parts) if self._finder is None else self._push_text(text, parts)
        return parts

    def finish(self) -> list[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        if self._finder is not None:
            parts += self._as_text(self._finder.flush())
        elif self._body or self._begin:
            parts += self._read_body(self._body, "")
        return parts

    def _push_text(self, text: str, parts: list[Part]) -> str:
        """Takes text outside of calls; returns what is left behind a mark."""
        finder = self._finder
        assert finder is not None
        before = finder.push(text)
        if self._style.at_start and before.strip():  # such a call would have stood first
            self._is_text, self._finder = True, None
            rest = finder.flush() if finder.found is None else finder.found + finder.rest
            parts += self._as_text(before + rest)
            self._body = self._begin = ""
            return ""
        parts += self._as_text(before)
        if finder.found is None:
            return ""
        self._finder, self._begin, self._body, self._searched = None, finder.found, "", 0
        return finder.rest

    def _push_body(self, text: str, parts: list[Part]) -> str:
        """Takes text within a call; returns what is left behind its end."""
        self._body += text
        while True:
            place, end = self._next_end()
            if place < 0:
                return ""
            if self._is_within_a_string(self._body[:place]):
                self._searched = place + len(end)
                continue
            rest = self._body[place + len(end) :]
            parts += self._read_body(self._body[:place], end)
            self._finder = MarkFinder(self._style.begins)
            return rest

    def _next_end(self) -> tuple[int, str]:
        """Where the next end mark is in the body, -1 where there is none so far; and the mark."""
        places = [(self._body.find(end, self._searched), end) for end in self._style.ends]
        found = [item for item in places if item[0] >= 0]
        if found:
            return min(found)
        longest = max(map(len, self._style.ends), default=1)
        self._searched = max(self._searched, len(self._body) - longest + 1)
        return -1, ""

    @staticmethod
    def _is_within_a_string(body: str) -> bool:
        """Whether a JSON text ends within a string, so that a mark there is part of it."""
        if body.lstrip()[:1] not in ("{", "["):
            return False
        return body.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 1

    def _read_body(self, body: str, end: str) -> list[Part]:
        """The calls in a body; the text where they cannot be read."""
        is_mark = not self._style.at_start or self._begin.startswith("<|")
        text = body if is_mark else self._begin + body
        try:
            calls = self._style.read(text, self._schemas)
        except MalformedCallError as error:
            self._begin, body = "", self._begin + body + end
            looks_like_a_call = is_mark or '"name"' in body
            note = (
                [Note(f"a call of a tool could not be read, and is text: {error}")]
                if looks_like_a_call
                else []
            )
            return [*self._as_text(body), *note]
        if not calls:
            begin, self._begin = self._begin, ""
            return self._as_text(begin + body + end)
        self._begin = self._body = self._space = ""
        if not self._parallel and (len(calls) > 1 or self._has_called):
            kept = calls[:0] if self._has_called else calls[:1]
            self._has_called = True
            return [*kept, Note("further calls were left out, since parallel_tool_calls is false")]
        self._has_called = True
        return list[Part](calls)

    def _as_text(self, text: str) -> list[Part]:
        """Text, without white space that only stands beside calls."""
        if not text:
            return []
        if self._has_called and not text.strip():
            self._space += text
            return []
        found, self._space = self._space + text, ""
        return [Text(found)]

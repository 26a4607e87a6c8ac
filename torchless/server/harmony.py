"""Reads the harmony format of gpt-oss: messages in channels, for reasoning, calls of tools, and the answer.

OpenAI's description of the format: an answer is a list of messages ``<|start|>assistant<|channel|>NAME to=RECIPIENT
<|message|>text`` that end with ``<|end|>``, ``<|call|>`` or ``<|return|>``. The prompt has the first
``<|start|>assistant``.
"""

from __future__ import annotations

import re

from torchless.server.marks import MarkFinder
from torchless.server.parts import Note, Part, Reasoning, Text
from torchless.server.tool_styles import MalformedCallError, Schemas, calls_of, json_values

__all__ = ["MARKS", "HarmonyReader"]

_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
MARKS = (*_ENDS, _MESSAGE, "<|channel|>", "<|constrain|>")
_RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyReader:
    """A `Reader` for this format.

    Args:
        schemas: the tools that there are.
    """

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._finder = MarkFinder([_MESSAGE])
        self._header: str | None = ""  # None: within a message
        self._channel = ""
        self._tool = ""
        self._body = ""  # of a call
        self._is_text = False

    def push(self, text: str) -> list[Part]:
        """See `Reader`."""
        parts: list[Part] = []
        while text:
            if self._is_text:
                return [*parts, Text(text)]
            text = self._push_message(text, parts) if self._header is None else self._push_header(text, parts)
        return parts

    def finish(self) -> list[Part]:
        """See `Reader`."""
        if self._is_text:
            return []
        held = self._finder.flush()
        if self._header is not None:  # an answer that ends within a header said nothing more
            return self._header_as_text(held) if not self._channel else []
        parts = self._message_parts(held)
        return [*parts, *self._end_call()]

    def _push_header(self, text: str, parts: list[Part]) -> str:
        assert self._header is not None
        self._header += self._finder.push(text)
        begun = self._header.lstrip()
        if begun and not self._channel and begun[0] not in "<tac":  # no header: an answer without channels
            self._is_text = True
            held = self._finder.flush()
            found = self._finder.found
            parts += [Text(self._header + (held if found is None else found + self._finder.rest))]
            return ""
        if self._finder.found is None:
            return ""
        channel, recipient = _CHANNEL.search(self._header), _RECIPIENT.search(self._header)
        self._channel = channel[1] if channel else "final"
        self._tool = recipient[1] if recipient else ""
        self._header, self._body = None, ""
        rest, self._finder = self._finder.rest, MarkFinder(_ENDS)
        return rest

    def _push_message(self, text: str, parts: list[Part]) -> str:
        parts += self._message_parts(self._finder.push(text))
        if self._finder.found is None:
            return ""
        parts += self._end_call()
        rest, self._header = self._finder.rest, ""
        self._finder = MarkFinder([_MESSAGE])
        return rest

    def _message_parts(self, text: str) -> list[Part]:
        if not text:
            return []
        if self._tool:
            self._body += text
            return []
        return [Reasoning(text) if self._channel == "analysis" else Text(text)]

    def _end_call(self) -> list[Part]:
        """The call that a message to a tool was."""
        if not self._tool:
            return []
        name, body, self._tool, self._body = self._tool, self._body, "", ""
        try:
            value = {"name": name, "arguments": list(json_values(body, "")) if body.strip() else [{}]}
            (value["arguments"],) = value["arguments"]
            return list[Part](calls_of(value, self._schemas))
        except (MalformedCallError, ValueError) as error:
            return [Text(body), Note(f"a call of the tool {name} could not be read, and is text: {error}")]

    def _header_as_text(self, held: str) -> list[Part]:
        text = (self._header or "") + held
        return [Text(text)] if text.strip() else []

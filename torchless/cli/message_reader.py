"""What a person types into a chat, or a pipe brings: one message at a time."""

from __future__ import annotations

import contextlib
import sys

from torchless.cli.prompt import decode_utf8
from torchless.cli.terminal import is_terminal

__all__ = ["MessageReader"]

_QUOTES = '"""'


class MessageReader:
    """Reads messages: a line each, or several lines between triple quotes.

    On a terminal lines can be edited and recalled (readline; the history lives in memory only).

    Attributes:
        is_interactive: a person types.
    """

    def __init__(self) -> None:
        self.is_interactive = is_terminal(sys.stdin)
        self._can_edit = self.is_interactive and is_terminal(sys.stdout)
        self._num_read_bytes = 0
        if self._can_edit:
            with contextlib.suppress(ImportError):  # Windows, whose console edits lines by itself
                import readline  # noqa: F401  # input() uses it once it is imported

    def read(self) -> str | None:
        """The next message, or None at the end.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            InvalidRequestError: piped text is not valid UTF-8.
        """
        line = self._line(">>> ")
        if line is None:
            return None
        head, quotes, text = line.partition(_QUOTES)
        if not quotes or not (head == "" or head.startswith("/")):
            return line
        lines = []
        while _QUOTES not in text:
            lines.append(text)
            following = self._line("... ")
            if following is None:
                break
            text = following
        else:
            lines.append(text.partition(_QUOTES)[0])
        return head + "\n".join(lines).strip("\n")

    def _line(self, prompt: str) -> str | None:
        if self._can_edit:
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.is_interactive:  # stdout goes to a file, which shall not get the prompt
            print(prompt, end="", file=sys.stderr, flush=True)
        return self._piped_line()

    def _piped_line(self) -> str | None:
        if sys.stdin is None:
            return None
        buffer = getattr(sys.stdin, "buffer", None)
        raw = sys.stdin.readline().encode() if buffer is None else buffer.readline()
        if not raw:
            return None
        line = decode_utf8(raw, "standard input", self._num_read_bytes)
        self._num_read_bytes += len(raw)
        return line.rstrip("\r\n")

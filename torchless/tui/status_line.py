"""The line at the bottom: what goes on, how fast, and how full the context is."""

from __future__ import annotations

from rich.text import Text

from torchless.chat.chat import Chat
from torchless.memory import format_bytes

__all__ = ["status_text"]

_KEYS_IDLE = "F1 help · ^T thinking · ^D leave"
_KEYS_BUSY = "Esc stops"


def status_text(
    chat: Chat,
    load_progress: tuple[str, int, int] | None,
    seconds: float | None,
    width: int,
    *,
    is_busy: bool,
) -> Text:
    """The line, with what matters less left out where it would not fit.

    Args:
        load_progress: title, bytes done and bytes of all, while a model is loaded.
        seconds: how long an answer has been written, None where none is.
    """
    left = _activity(chat, load_progress, seconds, is_busy=is_busy)
    right = _KEYS_BUSY if is_busy else _KEYS_IDLE
    middle = _context(chat)
    for line in (f"{middle}   {right}", right, ""):
        if len(left) + len(line) + 2 <= width:
            return Text(left + " " * (width - len(left) - len(line)) + line)
    return Text(left[:width])


def _activity(
    chat: Chat, load_progress: tuple[str, int, int] | None, seconds: float | None, *, is_busy: bool
) -> str:
    if load_progress is not None:
        title, done, total = load_progress
        return f"{title}: {format_bytes(done)} of {format_bytes(total)}" if total else f"{title} ..."
    if seconds is not None:
        num_tokens = chat.num_tokens_so_far
        if not num_tokens:
            return f"reading ... {seconds:.0f} s"
        return f"{num_tokens / seconds:.1f} tok/s · {num_tokens} tokens · {seconds:.0f} s"
    if is_busy:
        return "working ..."
    return f"{'coding · ' if chat.is_coding else ''}temperature {chat.conversation.params.temperature:g}"


def _context(chat: Chat) -> str:
    used, length = chat.num_context_tokens, chat.partner.context_length
    if used is None or length is None:
        return ""
    return f"context {used}/{length} ({used / length:.0%})"

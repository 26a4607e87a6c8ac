"""Commands of the coding mode: an answer's changes to files are collected, shown, written or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchless.chat.commands import Command, switch_argument
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.chat.chat import Chat


def _code(chat: Chat, argument: str) -> None:
    chat.is_coding = switch_argument("/code", argument, chat.is_coding)
    chat.num_context_tokens = None
    chat.view.show(
        f"Answers may propose changes to files in {chat.folder}: name files in questions with @FILE; nothing is "
        f"written before /apply."
        if chat.is_coding
        else "Answers are read as text again."
    )


def _diff(chat: Chat, argument: str) -> None:
    _require_changes(chat)
    chat.view.show(chat.edits.diff().rstrip("\n"))


def _apply(chat: Chat, argument: str) -> None:
    _require_changes(chat)
    chat.view.show(f"Written: {', '.join(chat.edits.apply())}.")


def _discard(chat: Chat, argument: str) -> None:
    _require_changes(chat)
    chat.view.show(f"Forgotten: the changes to {', '.join(chat.edits.discard())}.")


def _require_changes(chat: Chat) -> None:
    if not chat.edits:
        hint = "no answer has proposed any" if chat.is_coding else "/code lets answers propose some"
        raise InvalidRequestError(f"there are no changes to files; {hint}")


COMMANDS = (
    Command(("/code",), "[on|off]", "let answers propose changes to files", _code),
    Command(("/diff",), "", "show these changes", _diff),
    Command(("/apply",), "", "write them", _apply),
    Command(("/discard",), "", "forget them", _discard),
)

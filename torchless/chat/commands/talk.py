"""Commands about the conversation: begin anew, ask again, save, load, leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchless.chat.commands import Command, all_commands, path_argument
from torchless.chat.conversation import Conversation
from torchless.cli.terminal import columns
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.chat.chat import Chat


def _help(chat: Chat, argument: str) -> None:
    rows = [(f"{', '.join(command.names)} {command.argument}", command.help) for command in all_commands()]
    rows += [
        ('"""', "begins a message of several lines, and ends it"),
        ("@FILE, @FILE:10-50", "in a question: sends the file, or these lines of it"),
        ("Ctrl-C", "stops an answer"),
    ]
    chat.view.show("\n".join(columns(rows)))


def _clear(chat: Chat, argument: str) -> None:
    chat.conversation.messages.clear()
    chat.num_context_tokens = 0
    chat.view.restarted(chat)
    chat.view.show("Forgotten. A new conversation begins.")


def _retry(chat: Chat, argument: str) -> None:
    talk = chat.conversation
    before = list(talk.messages)
    if not talk.withdraw_answer():
        raise InvalidRequestError("nothing was asked yet")
    chat.view.restarted(chat)
    try:
        chat.answer()
    except BaseException:
        talk.messages[:] = before
        chat.view.restarted(chat)
        raise


def _save(chat: Chat, argument: str) -> None:
    path = path_argument("/save", argument)
    chat.conversation.save(path)
    chat.view.show(f"Saved {len(chat.conversation.messages)} messages in {path}.")


def _fullsave(chat: Chat, argument: str) -> None:
    path = path_argument("/fullsave", argument)
    about: dict[str, Any] = {
        "partner": dict(chat.partner.describe()),
        "chosen_settings": sorted(chat.chosen),
        "constraint": {name: repr(value) for name, value in chat.constraint.items()},
    }
    chat.conversation.save(path, about)
    chat.view.show(
        f"Saved {len(chat.conversation.messages)} messages in {path}, with reasoning and statistics."
    )


def _load(chat: Chat, argument: str) -> None:
    path = path_argument("/load", argument)
    before = chat.conversation.params
    chat.conversation = Conversation.load(path, before)
    if chat.conversation.params is not before:
        chat.chosen |= changed_names(chat)
    chat.num_context_tokens = None
    chat.view.restarted(chat)
    chat.view.show(f"Loaded {len(chat.conversation.messages)} messages from {path}.")


def _exit(chat: Chat, argument: str) -> None:
    chat.is_over = True


def changed_names(chat: Chat) -> set[str]:
    """Sampling parameters that are not the model's."""
    from dataclasses import fields

    params, defaults = chat.conversation.params, chat.partner.defaults
    return {
        item.name for item in fields(params) if getattr(params, item.name) != getattr(defaults, item.name)
    }


COMMANDS = (
    Command(("/help", "/?"), "", "this list", _help),
    Command(("/clear",), "", "forget the conversation and begin a new one", _clear),
    Command(("/retry",), "", "answer the last question again", _retry),
    Command(("/save",), "FILE", "write the conversation to a file", _save),
    Command(("/fullsave",), "FILE", "the same with reasoning, statistics and model", _fullsave),
    Command(("/load",), "FILE", "go on with a conversation that was saved", _load),
    Command(("/exit", "/bye", "/quit", "/q"), "", "leave (so does Ctrl-D)", _exit),
)

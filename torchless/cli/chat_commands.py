"""The commands of the chat: lines that start with a slash."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torchless.cli.conversation import Conversation
from torchless.cli.terminal import columns, counted, listing, number
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.cli.chat_session import ChatSession
    from torchless.sampling.parameters import SamplingParams

__all__ = ["run_command"]


class _Command(NamedTuple):
    names: tuple[str, ...]
    argument: str
    help: str
    action: Callable[[ChatSession, str], None]


def run_command(session: ChatSession, line: str) -> None:
    """Runs one line such as ``/set temperature 0.5``.

    Raises:
        TorchlessError: no such command, or it failed.
    """
    word, _, argument = line.strip().partition(" ")
    by_name = {name: command for command in _COMMANDS for name in command.names}
    command = by_name.get(word)
    if command is None:
        near = get_close_matches(word, by_name, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        raise InvalidRequestError(f"no command {word}; {hint}")
    command.action(session, argument.strip())


def _help(session: ChatSession, argument: str) -> None:
    rows = [(f"{', '.join(command.names)} {command.argument}", command.help) for command in _COMMANDS]
    rows += [('"""', "begins a message of several lines, and ends it"), ("Ctrl-C", "stops an answer")]
    print("\n".join(columns(rows)))


def _clear(session: ChatSession, argument: str) -> None:
    session.conversation.messages.clear()
    session.num_context_tokens = 0
    print("Forgotten. A new conversation begins.")


def _system(session: ChatSession, argument: str) -> None:
    talk = session.conversation
    if argument:
        talk.system = None if argument in ('""', "''", "none") else argument
    print(f"System message: {talk.system}" if talk.system is not None else "No system message.")


def _set(session: ChatSession, argument: str) -> None:
    name, _, text = argument.removeprefix("parameter ").strip().partition(" ")
    name, text = name.replace("-", "_"), text.strip()
    if name == "system":
        _system(session, text)
    elif name:
        before = session.conversation.params
        session.conversation.params = _changed(session, name, text)
        for parameter in _parameter_names(session):
            if getattr(session.conversation.params, parameter) != getattr(before, parameter):
                print(f"{parameter} is now {_shown(getattr(session.conversation.params, parameter))}.")
    else:
        print("\n".join(listing("Settings", _settings(session))))


def _changed(session: ChatSession, name: str, text: str) -> SamplingParams:
    """The parameters with one of them changed as typed.

    Raises:
        InvalidRequestError: no such parameter, or a value out of range.
    """
    params, names = session.conversation.params, _parameter_names(session)
    if not text:
        raise InvalidRequestError(f"/set {name} needs a value; 'default' is the model's own")
    try:
        if name in names and text == "default":
            return replace(params, **{name: getattr(session.llm.defaults, name)})
        if name in names and text == "none":
            nothing: dict[str, Any] = {name: None}
            return replace(params, **nothing)
        return params.updated(**{name: _value(name, text)})
    except TypeError:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise InvalidRequestError(f"no setting {name!r}; {hint}") from None


def _show(session: ChatSession, argument: str) -> None:
    info, talk = session.llm.info, session.conversation
    items = [
        ("model", str(info["path"])),
        ("context", f"{session.num_context_tokens} of {session.llm.context_length} tokens used"),
        ("turns", str(len(talk.messages))),
        (
            "runs on",
            f"{info['backend']} backend, {counted(info['num_threads'], 'thread')}, {info['kv_type']} cache, "
            f"{info['activations']} activations{', fast prompts' if info['fast'] else ''}",
        ),
        ("system", talk.system or "none"),
    ]
    print("\n".join([*listing("Chat", items), *listing("Settings", _settings(session))]))


def _retry(session: ChatSession, argument: str) -> None:
    talk = session.conversation
    before = list(talk.messages)
    if not talk.withdraw_answer():
        raise InvalidRequestError("nothing was asked yet")
    try:
        session.answer()
    except BaseException:
        talk.messages[:] = before
        raise


def _save(session: ChatSession, argument: str) -> None:
    path = _path("/save", argument)
    session.conversation.save(path)
    print(f"Saved {len(session.conversation.messages)} messages in {path}.")


def _load(session: ChatSession, argument: str) -> None:
    path = _path("/load", argument)
    session.conversation = Conversation.load(path, session.conversation.params)
    session.num_context_tokens = 0
    print(f"Loaded {len(session.conversation.messages)} messages from {path}.")


def _exit(session: ChatSession, argument: str) -> None:
    session.is_over = True


_COMMANDS = (
    _Command(("/help", "/?"), "", "this list", _help),
    _Command(("/clear",), "", "forget the conversation and begin a new one", _clear),
    _Command(("/system",), "[TEXT]", 'show or set the system message ("" for none)', _system),
    _Command(("/set",), "[NAME VALUE]", "show the settings, or change one: /set temperature 0.5", _set),
    _Command(("/show",), "", "model, context and settings", _show),
    _Command(("/retry",), "", "answer the last question again", _retry),
    _Command(("/save",), "FILE", "write the conversation to a file", _save),
    _Command(("/load",), "FILE", "go on with a conversation that was saved", _load),
    _Command(("/exit", "/bye", "/quit"), "", "leave (so does Ctrl-D)", _exit),
)


def _path(command: str, argument: str) -> Path:
    if not argument:
        raise InvalidRequestError(f"{command} needs the name of a file")
    return Path(argument).expanduser()


def _parameter_names(session: ChatSession) -> list[str]:
    return [item.name for item in fields(session.conversation.params)]


def _settings(session: ChatSession) -> list[tuple[str, str]]:
    """Names and values; those that the user changed are marked."""
    params, defaults = session.conversation.params, session.llm.defaults
    items = []
    for name in _parameter_names(session):
        value = getattr(params, name)
        items.append((name, _shown(value) + ("" if value == getattr(defaults, name) else "  (changed)")))
    return items


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, bool | tuple) else number(value)


def _value(name: str, text: str) -> Any:
    """A value as typed: JSON where it is that, else a string; ``ID=VALUE ...`` for logit_bias."""
    if name == "logit_bias":
        try:
            pairs = [pair.split("=", 1) for pair in text.split()]
            return {int(token_id): float(bias) for token_id, bias in pairs}
        except ValueError:
            raise InvalidRequestError(f"logit_bias takes ID=VALUE, such as 42=-1.5, got {text!r}") from None
    if text.lower() in ("on", "off"):
        return text.lower() == "on"
    try:
        return json.loads(text)
    except ValueError:
        return text

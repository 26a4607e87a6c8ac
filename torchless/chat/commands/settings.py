"""Commands about how answers are made: system message, sampling parameters, what is shown."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from torchless.chat.commands import Command, switch_argument
from torchless.cli.terminal import number
from torchless.errors import InvalidRequestError
from torchless.sampling.parameters import SamplingParams, parameter_name
from torchless.text.thinking import THINKING

if TYPE_CHECKING:
    from torchless.chat.chat import Chat


def _system(chat: Chat, argument: str) -> None:
    talk = chat.conversation
    if argument:
        talk.system = None if argument in ('""', "''", "none") else argument
        chat.num_context_tokens = None
    chat.view.show(f"System message: {talk.system}" if talk.system is not None else "No system message.")


def _set(chat: Chat, argument: str) -> None:
    name, _, text = argument.removeprefix("parameter ").strip().partition(" ")
    name, text = name.replace("-", "_"), text.strip()
    if name == "system":
        _system(chat, text)
    elif name:
        _change(chat, name, text)
    else:
        _settings(chat, "")


def _one(name: str, chat: Chat, argument: str) -> None:
    """``/temperature 0.5``: sets one parameter, or shows it."""
    if argument:
        _change(chat, name, argument)
    else:
        chat.view.show(f"{name} is {_shown(getattr(chat.conversation.params, name))}.")


def _settings(chat: Chat, argument: str) -> None:
    chat.view.listing("Settings", settings_of(chat))


def _change(chat: Chat, name: str, text: str) -> None:
    before = chat.conversation.params
    chat.conversation.params = params = _changed(chat, name, text)
    name = parameter_name(name)
    for parameter in _parameter_names(chat):
        is_new = getattr(params, parameter) != getattr(before, parameter)
        if text == "default" and parameter == name:
            chat.chosen.discard(parameter)
        elif is_new or parameter == name:
            chat.chosen.add(parameter)
        if is_new or parameter == name:
            chat.view.show(f"{parameter} is now {_shown(getattr(params, parameter))}.")


def _changed(chat: Chat, name: str, text: str) -> SamplingParams:
    """The parameters with one of them changed as typed.

    Raises:
        InvalidRequestError: no such parameter, or a value out of range.
    """
    params, names = chat.conversation.params, _parameter_names(chat)
    if not text:
        raise InvalidRequestError(f"/set {name} needs a value; 'default' is the model's own")
    try:
        if name in names and text == "default":
            return replace(params, **{name: getattr(chat.partner.defaults, name)})
        if name in names and text == "none":
            nothing: dict[str, Any] = {name: None}
            return replace(params, **nothing)
        return params.updated(**{name: _value(name, text)})
    except TypeError:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise InvalidRequestError(f"no setting {name!r}; {hint}") from None


def settings_of(chat: Chat) -> list[tuple[str, str]]:
    """Names and values; those that the user changed are marked."""
    params, defaults = chat.conversation.params, chat.partner.defaults
    items = []
    for name in _parameter_names(chat):
        value = getattr(params, name)
        is_changed = value != getattr(defaults, name) or (chat.partner.is_remote and name in chat.chosen)
        if chat.partner.is_remote and not is_changed:
            items.append((name, "the server's"))
        else:
            items.append((name, _shown(value) + ("  (changed)" if is_changed else "")))
    return items


def _thinking(chat: Chat, argument: str) -> None:
    chat.shows_reasoning = switch_argument("/thinking", argument, chat.shows_reasoning)
    chat.view.show(f"Reasoning is {'shown' if chat.shows_reasoning else 'hidden'}.")
    chat.view.restarted(chat)


def _think(chat: Chat, argument: str) -> None:
    level = argument.lower()
    if level and level != "default":
        chat.partner.check_thinking(level)
    if level:
        chat.thinking = None if level == "default" else level
        chat.num_context_tokens = None
    chat.view.show(f"Thinking: {chat.thinking or 'as the model does by itself'}.")


def _debug(chat: Chat, argument: str) -> None:
    chat.is_debugging = switch_argument("/debug", argument, chat.is_debugging)
    chat.view.show(
        "Each question is shown as the model gets it, and what its answer took."
        if chat.is_debugging
        else "Questions are no longer shown as the model gets them."
    )


def _parameter_names(chat: Chat) -> list[str]:
    return [item.name for item in fields(chat.conversation.params)]


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


COMMANDS = (
    Command(("/system",), "[TEXT]", 'show or set the system message ("" for none)', _system),
    Command(("/set",), "[NAME VALUE]", "show the settings, or change one: /set min_p 0.1", _set),
    Command(("/settings",), "", "show the settings", _settings),
    Command(
        ("/temperature", "/temp"), "[T]", "0 always takes the likeliest token", partial(_one, "temperature")
    ),
    Command(("/top-k",), "[K]", "only the K likeliest tokens", partial(_one, "top_k")),
    Command(("/top-p",), "[P]", "only the likeliest tokens that reach P", partial(_one, "top_p")),
    Command(
        ("/max-tokens",), "[N]", "most tokens of an answer; none is no limit", partial(_one, "max_tokens")
    ),
    Command(("/thinking",), "[on|off]", "show or hide the model's reasoning", _thinking),
    Command(
        ("/think",),
        f"[{'|'.join(THINKING)}|default]",
        "how much to think before answering, for models that can be asked",
        _think,
    ),
    Command(("/debug",), "[on|off]", "show what the model gets, and what answers take", _debug),
)

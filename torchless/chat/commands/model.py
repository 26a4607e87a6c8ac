"""Commands about who answers: model, template, drafting, where weights lie, how full the context is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchless.chat.commands import Command
from torchless.cli.terminal import columns
from torchless.errors import InvalidRequestError, TorchlessError
from torchless.speculative_kinds import SPECULATIVE

if TYPE_CHECKING:
    from torchless.chat.chat import Chat
    from torchless.chat.partners import Progress

_BAR_WIDTH = 40
_LAZY = {"on": True, "all": True, "experts": "experts", "off": False}


def _show(chat: Chat, argument: str) -> None:
    from torchless.chat.commands.settings import settings_of

    items = dict(chat.partner.describe())
    chat.view.listing(
        "Chat",
        [
            *items.items(),
            ("context", _usage(chat)),
            ("turns", str(len(chat.conversation.messages))),
            ("system", chat.conversation.system or "none"),
        ],
    )
    chat.view.listing("Settings", settings_of(chat))


def _context(chat: Chat, argument: str) -> None:
    length, used = chat.partner.context_length, chat.context_tokens()
    if length and used is not None:
        filled = round(_BAR_WIDTH * min(used / length, 1))
        chat.view.show(f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {_usage(chat)} ({used / length:.0%})")
    else:
        chat.view.show(f"{_usage(chat)}.")


def _usage(chat: Chat) -> str:
    length, used = chat.partner.context_length, chat.context_tokens()
    return f"{'unknown' if used is None else used} of {length or 'unknown'} tokens used"


def _model(chat: Chat, argument: str) -> None:
    if not argument:
        chat.view.listing("Model", chat.partner.describe())
        return
    name = argument if not Path(argument).expanduser().exists() else str(Path(argument).expanduser())
    with chat.view.loading(f"Loading {Path(argument).name}") as progress:
        _exchange(chat, chat.partner.switch(name, _stoppable(chat, progress)))
    chat.view.show(f"{chat.partner.name} answers from now on.")


def _lazy(chat: Chat, argument: str) -> None:
    if argument.lower() not in _LAZY:
        raise InvalidRequestError(f"/lazy takes on, experts or off, got {argument!r}")
    with chat.view.loading(f"Loading {chat.partner.name}") as progress:
        _exchange(chat, chat.partner.reload(_stoppable(chat, progress), lazy=_LAZY[argument.lower()]))
    is_lazy = _LAZY[argument.lower()]
    chat.view.show("Weights stay in the file." if is_lazy else "Weights are in memory.")


def _speculative(chat: Chat, argument: str) -> None:
    kind = {"on": "auto", "none": "off"}.get(argument.lower(), argument.lower())
    if kind not in SPECULATIVE:
        raise InvalidRequestError(
            f"/speculative takes on or one of {', '.join(SPECULATIVE)}, got {argument!r}"
        )
    with chat.view.loading(f"Loading {chat.partner.name}") as progress:
        _exchange(chat, chat.partner.reload(_stoppable(chat, progress), speculative=kind))
    chat.view.show("Nobody guesses ahead." if kind == "off" else f"Guessing ahead: {kind}.")


def _template(chat: Chat, argument: str) -> None:
    if not argument:
        chat.view.show("\n".join(columns(chat.partner.templates)))
        return
    description = chat.partner.use_template(argument)
    chat.num_context_tokens = None
    chat.view.show(f"The chat template is {description}.")


def _exchange(chat: Chat, notes: list[str]) -> None:
    """After another model has come: what the user set holds on, the rest is the new model's."""
    params = chat.conversation.params
    chosen = {name: getattr(params, name) for name in chat.chosen}
    chat.conversation.params = replace(chat.partner.defaults, **chosen)
    chat.num_context_tokens = None
    if chat.thinking is not None:
        try:
            chat.partner.check_thinking(chat.thinking)
        except TorchlessError as error:
            chat.thinking = None
            notes = [*notes, f"It thinks as it does by itself: {error}."]
    for note in notes:
        chat.view.note(note)


def _stoppable(chat: Chat, progress: Progress) -> Progress:
    """Progress that ends the loading once the user has stopped it."""

    def report(done_bytes: int, total_bytes: int) -> None:
        if chat.is_stopped:
            raise InvalidRequestError("stopped; the model before answers on")
        progress(done_bytes, total_bytes)

    return report


COMMANDS = (
    Command(("/show",), "", "model, context and settings", _show),
    Command(("/context",), "", "how full the context is", _context),
    Command(("/model",), "[MODEL|FILE]", "let another model answer; one that fails changes nothing", _model),
    Command(("/template",), "[NAME|FILE]", "list the chat templates, or use another", _template),
    Command(("/lazy",), "on|experts|off", "leave the weights in the file, or load them", _lazy),
    Command(("/speculative",), "|".join(("on", *SPECULATIVE)), "who guesses tokens ahead", _speculative),
)

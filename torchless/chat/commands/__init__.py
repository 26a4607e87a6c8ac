"""The commands of a chat: lines that start with a slash. Each file here has some, in `COMMANDS`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.chat.chat import Chat

__all__ = ["Command", "all_commands", "path_argument", "run_command", "switch_argument"]


class Command(NamedTuple):
    """A command.

    Attributes:
        names: with the slash; the first is the one that is listed first.
        argument: what may follow, for people. ``FILE`` in it lets screens complete names of files.
        help: a few words.
        action: does it; raises TorchlessError where that fails.
    """

    names: tuple[str, ...]
    argument: str
    help: str
    action: Callable[[Chat, str], None]


@cache
def all_commands() -> tuple[Command, ...]:
    """All commands, file by file."""
    names = sorted(item.name for item in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(command for name in names for command in import_module(f"{__name__}.{name}").COMMANDS)


def run_command(chat: Chat, line: str) -> None:
    """Runs one line such as ``/set temperature 0.5``.

    Raises:
        TorchlessError: no such command, or it failed.
    """
    word, _, argument = line.strip().partition(" ")
    by_name = {name: command for command in all_commands() for name in command.names}
    command = by_name.get(word)
    if command is None:
        near = get_close_matches(word, by_name, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        raise InvalidRequestError(f"no command {word}; {hint}")
    command.action(chat, argument.strip())


def path_argument(command: str, argument: str) -> Path:
    """The file that a command names. Raises InvalidRequestError where it names none."""
    if not argument:
        raise InvalidRequestError(f"{command} needs the name of a file")
    return Path(argument).expanduser()


def switch_argument(command: str, argument: str, now: bool) -> bool:
    """What a switch shall be: as it says, or the other way round where it says nothing."""
    words = {"": not now, "on": True, "show": True, "off": False, "hide": False}
    if argument.lower() not in words:
        raise InvalidRequestError(f"{command} takes on or off, got {argument!r}")
    return words[argument.lower()]

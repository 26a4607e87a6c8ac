"""What could stand where the cursor is: commands, settings, templates, files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchless.chat.commands import all_commands

if TYPE_CHECKING:
    from torchless.chat.chat import Chat

__all__ = ["Completion", "common_prefix", "complete"]

MAX_SHOWN = 200
_REFERENCE = re.compile(r"(?:^|\s)@(!?)([^\s:]*)$")
_SET = re.compile(r"/set (\S*)$")


class Completion(NamedTuple):
    """One way to go on.

    Attributes:
        text: stands in place of the last `num_replaced` characters before the cursor.
        help: what it is; may be empty.
    """

    text: str
    num_replaced: int
    help: str = ""


def complete(before: str, chat: Chat) -> list[Completion]:
    """All ways to go on from the text in front of the cursor."""
    if re.fullmatch(r"/\S*", before):
        found = [(name, command) for command in all_commands() for name in command.names]
        return [
            Completion(
                name + (" " if command.argument else ""),
                len(before),
                f"{command.argument}  {command.help}".strip(),
            )
            for name, command in sorted(found)
            if name.startswith(before)
        ]
    setting = _SET.fullmatch(before)
    if setting:
        names = [item.name for item in fields(chat.conversation.params)]
        return _words(setting[1], names)
    word, _, argument = before.partition(" ")
    command = next((command for command in all_commands() if word in command.names), None)
    if command is not None:
        if word == "/template":
            return _words(argument, [name for name, _ in chat.partner.templates if name != "in use"])
        return _paths(argument, chat.folder) if "FILE" in command.argument else []
    reference = _REFERENCE.search(before)
    return _paths(reference[2], chat.folder, hides_ignored=not reference[1]) if reference else []


def common_prefix(completions: list[Completion]) -> str:
    """What all of them begin with."""
    texts = [item.text for item in completions]
    shortest, longest = min(texts), max(texts)
    end = next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), len(shortest))
    return shortest[:end]


def _words(typed: str, words: Iterable[str]) -> list[Completion]:
    return [Completion(f"{word} ", len(typed)) for word in words if word.startswith(typed)]


def _paths(typed: str, folder: Path, *, hides_ignored: bool = False) -> list[Completion]:
    """Files and folders that begin like this; hidden ones only where a dot was typed."""
    head, slash, start = typed.rpartition("/")
    try:
        parent = folder / Path(head + slash).expanduser()
        entries = sorted(parent.iterdir(), key=lambda path: path.name)
        found = [path for path in entries if path.name.startswith(start)]
        found = [path for path in found if start.startswith(".") or not path.name.startswith(".")][:MAX_SHOWN]
        if hides_ignored:
            found = _without_ignored(found, folder)
        return [
            Completion(f"{head}{slash}{path.name}{'/' if path.is_dir() else ''}", len(typed))
            for path in found
        ]
    except (OSError, RuntimeError, ValueError):  # no such folder, no such user
        return []


def _without_ignored(paths: list[Path], folder: Path) -> list[Path]:
    """Leaves out what git ignores; outside of a repository nothing is."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "check-ignore", "--stdin", "-z"],
            input=b"".join(os.fsencode(path.absolute()) + b"\0" for path in paths),
            capture_output=True,
            timeout=2,
        )
    except (OSError, subprocess.TimeoutExpired):
        return paths
    ignored = set(done.stdout.split(b"\0"))
    return [path for path in paths if os.fsencode(path.absolute()) not in ignored]

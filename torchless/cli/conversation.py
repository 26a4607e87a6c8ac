"""A conversation: messages, system message and sampling parameters, in memory and in JSON files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torchless.errors import InvalidRequestError
from torchless.sampling.parameters import SamplingParams

__all__ = ["Conversation"]

_ROLES = ("system", "user", "assistant", "tool")
_VERSION = 1


@dataclass(slots=True)
class Conversation:
    """What was said, and how answers are made.

    Attributes:
        params: sampling parameters of the next answer.
        system: system message, or None.
        messages: turns of user and assistant, oldest first, without the system message.
    """

    params: SamplingParams
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def request(self) -> list[dict[str, str]]:
        """All messages, as a model gets them."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, *self.messages]

    def add(self, role: str, content: str) -> None:
        """Appends a turn."""
        self.messages.append({"role": role, "content": content})

    def withdraw_answer(self) -> bool:
        """Removes what came after the last question; False where no question was asked."""
        for position in range(len(self.messages) - 1, -1, -1):
            if self.messages[position]["role"] == "user":
                del self.messages[position + 1 :]
                return True
        return False

    def save(self, path: Path) -> None:
        """Writes a JSON file that `load` reads; an existing one is replaced.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        content = {
            "format": "torchless conversation",
            "version": _VERSION,
            "settings": {item.name: _plain(getattr(self.params, item.name)) for item in fields(self.params)},
            "messages": self.request(),
        }
        try:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequestError(f"{path}: cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path, params: SamplingParams) -> Conversation:
        """Reads a file that `save` wrote, or a JSON list of messages, which leaves `params` as they are.

        Raises:
            InvalidRequestError: no such file, or not a conversation; the message says where.
        """
        content = _read_json(path)
        if isinstance(content, list):
            content = {"messages": content}
        if not isinstance(content, dict) or content.get("version", _VERSION) != _VERSION:
            raise InvalidRequestError(f"{path}: not a conversation that this version of torchless saved")
        stored = content.get("messages")
        if not isinstance(stored, list):
            raise InvalidRequestError(f"{path}: messages: found {type(stored).__name__}, expected a list")
        messages = [_checked_message(path, message) for message in stored]
        system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
        settings = content.get("settings")
        return cls(params if settings is None else _params(path, settings), system, messages)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}; expected a conversation saved before") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path}: not a saved conversation: {error}") from None


def _plain(value: Any) -> Any:
    """A parameter as JSON has it, which lacks infinity."""
    if isinstance(value, dict):
        return {str(key): "-inf" if item == -math.inf else item for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _params(path: Path, settings: Any) -> SamplingParams:
    try:
        biases = {int(key): float(item) for key, item in (settings.get("logit_bias") or {}).items()}
        return SamplingParams.from_kwargs(**{**settings, "logit_bias": biases})
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"{path}: settings: {error}") from None


def _checked_message(path: Path, message: Any) -> dict[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES or not isinstance(message.get("content"), str):
        raise InvalidRequestError(
            f"{path}: messages: found {str(message)[:60]!r}, expected a role ({', '.join(_ROLES)}) "
            f"and a content"
        )
    return {"role": role, "content": message["content"]}

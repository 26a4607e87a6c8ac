"""A conversation: messages, system message and sampling parameters, in memory and in JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torchless.errors import InvalidRequestError
from torchless.sampling.parameters import SamplingParams

__all__ = ["Conversation"]

_ROLES = ("system", "user", "assistant", "tool")
_SENT = ("role", "content")
_VERSION = 1


@dataclass(slots=True)
class Conversation:
    """What was said, and how answers are made.

    Attributes:
        params: sampling parameters of the next answer.
        system: system message, or None.
        messages: turns of user and assistant, oldest first, without the system message. Answers may have more than role
            and content: ``reasoning_content``, and ``statistics``, a dict.
        num_dropped: how many of them, the oldest, the model is not told any more (`context_shift`). Not saved.
    """

    params: SamplingParams
    system: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    num_dropped: int = 0

    def request(self) -> list[dict[str, Any]]:
        """All messages, as a model gets them: roles and contents."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, *({name: message[name] for name in _SENT} for message in self.messages)]

    def add(self, role: str, content: str, **more: Any) -> None:
        """Appends a turn; what is None of `more` is left out."""
        further = {name: value for name, value in more.items() if value is not None}
        self.messages.append({"role": role, "content": content, **further})

    def withdraw_answer(self) -> bool:
        """Removes what came after the last question; False where no question was asked."""
        for position in range(len(self.messages) - 1, -1, -1):
            if self.messages[position]["role"] == "user":
                del self.messages[position + 1 :]
                return True
        return False

    def save(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        """Writes a JSON file that `load` reads; an existing one is replaced.

        Args:
            about: None leaves out all but what a model gets; else all that is known of the answers is written, and
                these values beside it.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        content = {
            "format": "torchless conversation",
            "version": _VERSION,
            "settings": {item.name: _plain(getattr(self.params, item.name)) for item in fields(self.params)},
            **(about or {}),
            "messages": self.request() if about is None else self._everything(),
        }
        try:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequestError(f"{path}: cannot be written: {error.strerror}") from None

    def _everything(self) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, *self.messages]

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


def _checked_message(path: Path, message: Any) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES or not isinstance(message.get("content"), str):
        raise InvalidRequestError(
            f"{path}: messages: found {str(message)[:60]!r}, expected a role ({', '.join(_ROLES)}) "
            f"and a content"
        )
    checked = {"role": role, "content": message["content"]}
    if isinstance(message.get("reasoning_content"), str):
        checked["reasoning_content"] = message["reasoning_content"]
    if isinstance(message.get("statistics"), dict):
        checked["statistics"] = message["statistics"]
    return checked

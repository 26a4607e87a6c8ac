"""Opens adapters by what their files say, and reads how a user names them: path and scale."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torchless.adapters.adapter import Adapter
from torchless.adapters.files import CONFIG_NAME, is_adapter, is_adapter_folder, is_adapter_path
from torchless.adapters.gguf_adapter import adapter_from_gguf
from torchless.adapters.peft_folder import adapter_from_folder
from torchless.errors import FormatError, InvalidRequestError, ModelNotFoundError
from torchless.weights.gguf import GgufSource

__all__ = ["ScaledPath", "find_adapter", "open_adapter", "parse_scaled_path", "scaled_paths"]


class ScaledPath(NamedTuple):
    """An adapter and how much of it is applied: 1 is what it was trained for."""

    path: Path
    scale: float = 1.0


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Reads a LoRA adapter: a GGUF file, or a folder of the peft library (or its adapter_model.safetensors).

    Raises:
        ModelNotFoundError: nothing is there.
        FormatError: it is no adapter, or a broken one.
        UnsupportedError: an adapter that torchless cannot apply, by name.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ModelNotFoundError(
            f"{path}: no such adapter; give a GGUF adapter or a folder with {CONFIG_NAME}"
        )
    if path.is_dir():
        if not is_adapter_folder(path):
            raise FormatError(f"{path}: there is no {CONFIG_NAME}, so this is no folder of an adapter")
        return adapter_from_folder(path)
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if is_gguf:
        return adapter_from_gguf(path)
    if is_adapter_path(path):
        return adapter_from_folder(path.parent)
    raise FormatError(f"{path}: not an adapter; expected a GGUF adapter or a folder with {CONFIG_NAME}")


def find_adapter(path: str | os.PathLike[str]) -> Adapter | None:
    """The adapter at a path; None where there is something else, or nothing.

    Raises:
        FormatError, UnsupportedError: as `open_adapter`.
    """
    path = Path(path).expanduser()
    try:
        if path.is_file() and path.open("rb").read(4) == b"GGUF":
            with GgufSource(path) as source:
                found = is_adapter(source.metadata)
        else:
            found = is_adapter_path(path)
    except (OSError, ValueError):  # whoever opens it as a model says what is wrong
        return None
    return open_adapter(path) if found else None


def parse_scaled_path(text: str) -> ScaledPath:
    """Reads ``PATH`` or ``PATH:SCALE``.

    >>> parse_scaled_path("a/b.gguf:0.5")
    ScaledPath(path=PosixPath('a/b.gguf'), scale=0.5)
    """
    before, colon, after = text.rpartition(":")
    if colon and before and not Path(text).exists():
        try:
            return ScaledPath(Path(before), _scale(float(after)))
        except ValueError as error:
            if isinstance(error, InvalidRequestError):
                raise
    return ScaledPath(Path(text))


def scaled_paths(value: Any) -> tuple[ScaledPath, ...]:
    """Adapters as `load(lora=)` takes them: a path, a pair (path, scale), or a list of either; None is none.

    Raises:
        InvalidRequestError: something else, or a scale that is not finite.
    """
    if value is None:
        return ()
    if isinstance(value, ScaledPath | str | os.PathLike) or _is_pair(value):
        value = [value]
    if not isinstance(value, Iterable):
        raise InvalidRequestError(f"lora must be a path, (path, scale) or a list of them, got {value!r}")
    result = []
    for item in value:
        if isinstance(item, str):
            result.append(parse_scaled_path(item))
        elif isinstance(item, os.PathLike):
            result.append(ScaledPath(Path(item)))
        elif _is_pair(item):
            result.append(ScaledPath(Path(item[0]), _scale(item[1])))
        else:
            raise InvalidRequestError(f"lora must be a path, (path, scale) or a list of them, got {item!r}")
    return tuple(result)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and isinstance(value[0], str | os.PathLike)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


def _scale(value: float) -> float:
    if not math.isfinite(value):
        raise InvalidRequestError(f"lora: a scale of {value}; it must be a finite number")
    return float(value)

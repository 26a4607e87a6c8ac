"""How a folder of the sentence-transformers library makes one vector of a text, in GGUF's words.

``modules.json`` lists what happens behind the transformer; ``1_Pooling/config.json`` says how rows become one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchless.errors import FormatError, UnsupportedError

__all__ = ["NORMALIZE_KEY", "POOLING_TYPES", "pooling_settings"]

POOLING_TYPES = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""Values of GGUF's ``<architecture>.pooling_type``."""

NORMALIZE_KEY = "torchless.embedding.normalize"
"""Whether vectors are made unit long, which GGUF files have no key for; they are where it is absent."""

_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_MOST_BYTES = 1 << 20


def pooling_settings(folder: Path, architecture: str) -> dict[str, Any]:
    """Metadata of the pooling; empty for folders of other libraries.

    Raises:
        FormatError: a file is broken.
        UnsupportedError: a step or a way of pooling that torchless does not have (named).
    """
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    modules = _read(path)
    if not isinstance(modules, list) or not all(isinstance(item, dict) for item in modules):
        raise FormatError(f"{path}: found a JSON {type(modules).__name__}, expected a list of steps")
    found: dict[str, Any] = {NORMALIZE_KEY: False}
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(folder, str(module.get("path", "")), path)
            found[f"{architecture}.pooling_type"] = POOLING_TYPES[pooling]
        elif kind == "Normalize":
            found[NORMALIZE_KEY] = True
        elif kind != "Transformer":
            raise UnsupportedError(
                f"{path}: the model has a step {kind!r} behind the transformer; torchless computes Pooling and "
                f"Normalize"
            )
    return found


def _pooling(folder: Path, name: str, modules: Path) -> str:
    path = folder / name / "config.json"
    if not name or Path(name).name != name or not path.is_file():
        raise FormatError(f"{modules}: the step Pooling is in {name!r}, where there is no config.json")
    config = _read(path)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: found a JSON {type(config).__name__}, expected an object")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if config.get("pooling_mode") is not None:  # newer folders name it
        modes = [f"pooling_mode_{config['pooling_mode']}"]
    named = {
        **_MODES,
        **{f"pooling_mode_{name}": name for name in ("mean", "cls")},
        "pooling_mode_lasttoken": "last",
    }
    known = [named[mode] for mode in modes if mode in named]
    if len(modes) != 1 or len(known) != 1:
        raise UnsupportedError(
            f"{path}: the ways of pooling are {', '.join(modes) or 'none'}; torchless pools by one of "
            f"{', '.join(_MODES)}"
        )
    return known[0]


def _read(path: Path) -> Any:
    if path.stat().st_size > _MOST_BYTES:
        raise FormatError(f"{path}: {path.stat().st_size} bytes, expected at most {_MOST_BYTES}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON: {error}") from None

"""What tells an adapter from a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "is_adapter", "is_adapter_folder", "is_adapter_path"]

CONFIG_NAME = "adapter_config.json"
"""What the peft library writes beside an adapter's weights."""

WEIGHTS_NAME = "adapter_model.safetensors"


def is_adapter(metadata: Mapping[str, Any]) -> bool:
    """Whether a GGUF file with this metadata is an adapter."""
    return metadata.get("general.type") == "adapter"


def is_adapter_folder(path: Path) -> bool:
    """Whether a folder holds an adapter of the peft library."""
    return (path / CONFIG_NAME).is_file()


def is_adapter_path(path: str | Path) -> bool:
    """Whether a path is a folder of the peft library, or the weights in it."""
    path = Path(path)
    return is_adapter_folder(path) or (path.name == WEIGHTS_NAME and is_adapter_folder(path.parent))

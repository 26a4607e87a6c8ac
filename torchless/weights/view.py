"""A model seen otherwise than it is stored: what all weight sources over another source share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["SourceView"]


class SourceView:
    """The attributes of a source, taken over; `tensors`, `raw` and `drop_pages` are those of the view.

    With these it implements `weights.source.WeightSource`. Closing it closes the source.

    Attributes:
        source: the model as it is stored.
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"]

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self.path, self.format, self.metadata = source.path, source.format, source.metadata
        self.rope_layout = source.rope_layout

    def close(self) -> None:
        """Closes the source."""
        self.source.close()

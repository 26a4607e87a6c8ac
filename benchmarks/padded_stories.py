"""The built-in model with zeros behind its feed-forward layers: the same answers, at the cost of a larger model.

The built-in model fits into a processor's cache, where a step of a few rows takes a few times as long as one of a
single row. That is not so for models that lie in memory. Zeros change no logit, but they are read and multiplied like
all weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from torchless import quants
from torchless.loading import BUILT_IN_MODEL
from torchless.weights.gguf_writer import TensorData, write_gguf
from torchless.weights.open import open_source

__all__ = ["write_padded_stories"]


def write_padded_stories(path: Path, width: int) -> None:
    """Writes the model with feed-forward layers of `width`, a multiple of 32."""
    source = open_source(BUILT_IN_MODEL)
    old = int(source.metadata["llama.feed_forward_length"])
    if width < old or width % 32:
        raise ValueError(f"the width must be a multiple of 32 from {old} on, not {width}")

    def tensors() -> Iterator[TensorData]:
        for name, info in source.tensors.items():
            raw = np.asarray(source.raw(name))
            rows, columns = (*info.shape, 1)[:2]
            row_bytes = len(raw) // rows
            if ".ffn_gate." in name or ".ffn_up." in name:
                padded = np.zeros((width, row_bytes), np.uint8)
                padded[:rows] = raw.reshape(rows, row_bytes)
                yield name, (width, columns), info.type, [padded.reshape(-1)]
            elif ".ffn_down." in name:
                padded = np.zeros((rows, quants.by_name(info.type).num_bytes(width)), np.uint8)
                padded[:, :row_bytes] = raw.reshape(rows, row_bytes)
                yield name, (rows, width), info.type, [padded.reshape(-1)]
            else:
                yield name, info.shape, info.type, [raw]

    try:
        metadata = {**source.metadata, "llama.feed_forward_length": np.uint32(width)}
        write_gguf(path, metadata, tensors())
    finally:
        source.close()

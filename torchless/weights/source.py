"""What the rest of torchless sees of a model file, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["TensorInfo", "WeightSource"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a model file.

    Attributes:
        name: canonical name (GGUF's: ``blk.0.attn_q.weight``), already translated.
        shape: rows first, as NumPy has it: a linear layer's weight is (out, in).
        type: quantisation format by its GGUF name: ``"F32"``, ``"BF16"``, ``"Q4_K"``, ...
        num_bytes: size of the stored data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    num_bytes: int


class WeightSource(Protocol):
    """A model file (or folder), opened and checked. Data stays in the file until asked for.

    Attributes:
        path: what was opened.
        format: ``"gguf"`` or ``"safetensors"``.
        metadata: GGUF-style keys. A GGUF's own metadata as it stands; for a Hugging Face folder
            config.json translated to the same keys (``general.architecture``, ``llama.block_count``, ...).
        tensors: by canonical name, in file order.
        rope_layout: how this format stores rotary pairs of llama-like models (see `plan.RopeSpec`).
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"]

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The stored bytes of a tensor: a read-only zero-copy view into the file's memory map."""
        ...

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Tells the operating system that file pages are not needed any more: all of the tensor's, or those of
        `num_bytes` bytes from `start` on."""
        ...

    def close(self) -> None:
        """Gives the memory map back once the last view is gone."""
        ...

"""One adapter in memory: for each linear layer two thin matrices and what their product counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from torchless.errors import FormatError
from torchless.quants import Floats
from torchless.weights.stored_weights import FileTensor

__all__ = ["Adapter", "LowRank", "checked_part"]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one weight: ``scale * b @ a``. Hu et al. 2021, "LoRA".

    Attributes:
        a: float32 (rank, in).
        b: float32 (out, rank).
        scale: alpha / rank, or alpha / sqrt(rank) where the adapter was trained so (Kalajdzievski 2023).
    """

    a: Floats
    b: Floats
    scale: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter, read and checked by itself; `binding` checks it against a model.

    Attributes:
        path: what was opened.
        format: ``"gguf"`` or ``"peft"`` (a folder of the peft library).
        architecture: GGUF's name of the model's architecture; "" where the adapter does not say.
        name: its own name, "" if it has none.
        base: the model that it was trained for, as the adapter names it; "" where it does not.
        alpha: what its product counts, before it is divided by the rank.
        parts: by the canonical name of the weight that it adds to.
        copies: what the folder repeats of the model's own weights (peft adds embedding and output layer to some), by
            canonical name; `binding` checks that they are indeed the model's.
        rope_layout: how rows of rotary queries and keys lie: GGUF adapters follow GGUF models.
    """

    path: Path
    format: Literal["gguf", "peft"]
    architecture: str
    name: str
    base: str
    alpha: float
    parts: Mapping[str, LowRank]
    rope_layout: Literal["interleaved", "half"]
    copies: Mapping[str, FileTensor] = field(default_factory=dict)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, ascending."""
        return tuple(sorted({part.rank for part in self.parts.values()}))

    @property
    def num_parameters(self) -> int:
        """Elements of all matrices."""
        return sum(part.a.size + part.b.size for part in self.parts.values())


def checked_part(path: Path, name: str, a: Floats | None, b: Floats | None, scale: float) -> LowRank:
    """The two matrices of a weight.

    Raises:
        FormatError: one is missing, they do not fit together, or a number is not finite.
    """
    if a is None or b is None:
        there, missing = ("a", "b") if b is None else ("b", "a")
        raise FormatError(f"{path}: {name} has a matrix {there} but no {missing}; the adapter is incomplete")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.size or not b.size:
        raise FormatError(
            f"{path}: {name}: matrices of {a.shape} and {b.shape} do not fit together, expected a (rank, in) and "
            f"b (out, rank)"
        )
    for letter, values in (("a", a), ("b", b)):
        if not np.isfinite(values).all():
            raise FormatError(
                f"{path}: {name}: its matrix {letter} holds NaN or infinity; the training went wrong, or the file is "
                f"broken"
            )
    if not math.isfinite(scale):
        raise FormatError(f"{path}: {name}: its scale is {scale}, expected a finite number")
    return LowRank(a, b, scale)

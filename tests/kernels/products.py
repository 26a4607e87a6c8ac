"""Packed random matrices of every weight format, and what their activation rows stand for."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks

FORMATS = [name for name in quants.all_formats() if name in BLOCK_TYPES]
NUM_ROWS = 37  # two whole tiles and a partly filled one
NUM_COLUMNS = 768


def random_rows(name: str, num_rows: int, num_columns: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Stored rows (num_rows, row bytes) of random weights with sane scales."""
    raw = np.concatenate(list(random_blocks(BLOCK_TYPES[name], num_rows * num_columns, 0.05, [seed])))
    return raw.reshape(num_rows, -1)


def activation_values(
    kernels: ModuleType, rows: npt.NDArray[np.uint8], format_: str, width: int
) -> npt.NDArray[Any]:
    """The numbers that activation rows stand for, as float64."""
    if format_ == "f32":
        return rows.view(np.float32)[:, :width].astype(np.float64)
    if format_ == "bf16":
        return (rows.view(np.uint16)[:, :width].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    layout = kernels.row_layout(format_, width)
    block = 256 if format_ == "int8x256" else 32
    start = layout["scale_offset"]
    scales = np.ascontiguousarray(rows[:, start : start + 4 * (width // block)]).view(np.float32)
    return rows[:, :width].view(np.int8) * np.repeat(scales.astype(np.float64), block, axis=1)


class Product:
    """One format's packed random matrix at one level, and the activations that it multiplies."""

    def __init__(
        self,
        kernels: ModuleType,
        level: str,
        name: str,
        num_columns: int = NUM_COLUMNS,
        precision: str = "int8",
        num_rows: int = NUM_ROWS,
        fast: bool = False,
    ) -> None:
        self.fast = fast
        self.kernels, self.level, self.precision = kernels, level, precision
        self.format = quants.by_name(name)
        self.raw, self.num_rows = random_rows(name, num_rows, num_columns), num_rows
        self.num_columns = num_columns
        self.tiles = kernels.pack(level, self.format.id, self.raw)
        self.activations = next(
            f["activations"] for f in kernels.formats(level, precision) if f["gguf_type"] == self.format.id
        )

    def rows(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return self.kernels.convert_rows(self.level, x, self.activations)

    def __call__(self, rows: npt.NDArray[np.uint8], **options: Any) -> npt.NDArray[np.float32]:
        return self.kernels.matmul(
            *(self.level, self.format.id, self.tiles, self.num_columns, self.num_rows, rows),
            activations=self.precision,
            fast=self.fast,
            **options,
        )

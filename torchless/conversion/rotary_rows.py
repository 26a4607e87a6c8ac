"""Order of the rows of query and key projections: rotary pairs interleaved (GGUF) or in halves (safetensors).

Rotary embeddings turn pairs of a head's elements. Element j of `rotated` is paired with element j + rotated/2
in the "half" layout and stands at 2j, its partner at 2j + 1, in the "interleaved" one. Elements behind the rotated
ones stay where they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError

__all__ = ["row_order"]


def row_order(
    num_rows: int, num_heads: int, rotated: int, to: Literal["interleaved", "half"]
) -> npt.NDArray[np.intp]:
    """For each row of the wanted layout the row of the other one that belongs there.

    Raises:
        FormatError: the rows are not `num_heads` heads of at least `rotated` elements.

    >>> row_order(8, 1, 6, "interleaved").tolist()
    [0, 3, 1, 4, 2, 5, 6, 7]
    >>> row_order(8, 1, 6, "half").tolist()
    [0, 2, 4, 1, 3, 5, 6, 7]
    """
    if num_heads < 1 or num_rows % num_heads or rotated % 2 or not 0 <= rotated <= num_rows // num_heads:
        raise FormatError(
            f"{num_rows} rows are not {num_heads} heads of an even number of {rotated} rotated elements"
        )
    head = np.arange(num_rows // num_heads)
    pairs = head[:rotated].reshape((2, rotated // 2) if to == "interleaved" else (rotated // 2, 2))
    head[:rotated] = pairs.T.reshape(-1)
    order: npt.NDArray[np.intp] = (np.arange(num_heads)[:, None] * len(head) + head).reshape(-1)
    return order

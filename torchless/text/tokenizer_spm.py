"""Merge rules for SentencePiece vocabularies, which store scores instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["spm_merges"]


def spm_merges(
    texts: Sequence[str], scores: npt.NDArray[np.float32], mergeable: npt.NDArray[np.bool_]
) -> list[Any]:
    """All pairs of tokens that make a token, the ones to merge first in front.

    SentencePiece joins the two neighbours whose union has the best score, the leftmost of equals. Merge rules
    say the same when tokens are sorted by score and the rules that make one token follow each other.

    Args:
        texts: by id.
        scores: by id.
        mergeable: by id; False for control, unknown and byte tokens, which text never becomes by itself.

    Returns:
        ``[left, right]`` pairs.
    """
    parts = {texts[index] for index in np.flatnonzero(mergeable).tolist()}
    merges: list[Any] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        text = texts[index]
        if len(text) < 2 or not mergeable[index]:
            continue
        for cut in range(1, len(text)):
            left = text[:cut]
            if left in parts and text[cut:] in parts:
                merges.append((left, text[cut:]))
    return merges

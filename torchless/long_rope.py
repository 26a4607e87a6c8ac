"""LongRoPE: a divisor for each rotary frequency, one set for short contexts and one for long ones. Ding et al. 2024.

GGUF files hold the sets as tensors (``rope_factors_short.weight``, ``rope_factors_long.weight``), folders in
``rope_scaling``.
"""

from __future__ import annotations

import math
from typing import Literal

from torchless.blocks import rope_spec
from torchless.config import ConfigReader
from torchless.errors import FormatError
from torchless.plan import RopeSpec

__all__ = ["FACTOR_TENSORS", "read_long_rope"]

FACTOR_TENSORS = {"short": "rope_factors_short.weight", "long": "rope_factors_long.weight"}


def read_long_rope(
    reader: ConfigReader, *, rotated: int, context_length: int, layout: Literal["interleaved", "half"]
) -> RopeSpec | None:
    """The rotary embedding of a model with LongRoPE; None for other models.

    The long set serves contexts beyond the length of pre-training. A model is loaded for one context length
    (`ConfigReader.wanted_context`), so one set is chosen for all of its tokens.

    Raises:
        FormatError: only one of the two sets is there, or it has another length.
    """
    sets = {kind: _factors(reader, kind) for kind in FACTOR_TENSORS}
    if sets == {"short": None, "long": None}:
        return None
    reader.expect("rope.scaling.type", "longrope", "su", "none")
    original = reader.integer("rope.scaling.original_context_length", context_length)
    growth = reader.number("rope.scaling.factor", context_length / original)
    magnitude = 1.0 if growth <= 1 else math.sqrt(1 + math.log(growth) / math.log(original))
    magnitude = reader.number("rope.scaling.attention_factor", magnitude)
    magnitude = reader.number("rope.scaling.attn_factor", magnitude)
    wanted = reader.wanted_context or context_length
    kind = "long" if wanted > original else "short"
    factors = sets[kind]
    if factors is None:
        raise FormatError(
            f"{reader.source.path}: {FACTOR_TENSORS[kind]} is missing, though its other set is there"
        )
    theta = reader.number("rope.freq_base", 10000.0)
    return rope_spec(rotated, theta, layout, None, factors, magnitude)


def _factors(reader: ConfigReader, kind: str) -> tuple[float, ...] | None:
    stored = reader.float_tensor(FACTOR_TENSORS[kind])
    return reader.numbers(f"rope.scaling.{kind}_factor") if stored is None else stored

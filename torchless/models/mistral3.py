"""Ministral 3 and what is built like it: a llama whose queries grow with the position.

Queries are multiplied by ``1 + beta * ln(1 + floor(position / interval))``, where the interval is the context of
pre-training: attention stays as sharp over more keys. Mistral Small 3 and older models are llamas.

Mistral AI 2025 (Ministral 3).
"""

from __future__ import annotations

import math
from dataclasses import replace

from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.errors import UnsupportedError
from torchless.models.llama import forward

__all__ = ["ARCHITECTURES", "LIMITS", "forward", "read_config"]  # the forward pass is Llama's

ARCHITECTURES = ("mistral3",)
LIMITS = ("text only", "no sliding windows in some of the layers")


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    settings = read_settings(reader, layout=None)
    # What YaRN multiplies queries and keys with, and what it is divided by.
    factor = reader.number("rope.scaling.factor", 1.0)
    growth = reader.number("rope.scaling.yarn_log_multiplier", 0.0) * math.log(max(factor, 1.0))
    rope = replace(settings.rope, magnitude=settings.rope.magnitude / (1.0 + 0.1 * growth))
    beta = reader.number("attention.temperature_scale", 0.0)
    interval = reader.integer("rope.scaling.original_context_length", settings.context_length)
    if beta and 2 * len(rope.inv_freq) != settings.head_dim:
        raise UnsupportedError(
            f"{reader.source.path}: {2 * len(rope.inv_freq)} of {settings.head_dim} elements of a head turn; torchless "
            f"runs mistral3 models with attention.temperature_scale where all of them do"
        )
    query_rope = replace(rope, temperature=(beta, interval)) if beta else None
    return replace(settings, rope=rope, query_rope=query_rope)

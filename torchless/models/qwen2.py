"""Qwen1.5, Qwen2 and Qwen2.5: a llama whose queries, keys and values have biases.

Qwen team 2024 (Qwen2 technical report; Qwen2.5 technical report).
"""

from __future__ import annotations

from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.models.llama import forward

__all__ = ["ARCHITECTURES", "LIMITS", "forward", "read_config"]  # the forward pass is Llama's

ARCHITECTURES = ("qwen2",)
LIMITS = ("all layers alike: no windows in some of them",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    return read_settings(reader, layout="half")

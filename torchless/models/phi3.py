"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: one tensor for queries, keys and values and one for gate and up, LongRoPE.

Abdin et al. 2024 (Phi-3 technical report; Phi-4 technical report).
"""

from __future__ import annotations

from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.models.llama import forward

__all__ = ["ARCHITECTURES", "LIMITS", "forward", "read_config"]  # the forward pass is Llama's

ARCHITECTURES = ("phi3",)
LIMITS = ("LongRoPE's set of factors follows the context that is loaded",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    return read_settings(reader, layout="half")

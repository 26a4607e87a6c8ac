"""Gemma 1: a llama whose MLP is gated by a GELU and whose embeddings are multiplied by the root of their width.

Gemma team 2024 (Gemma: open models based on Gemini research and technology).
"""

from __future__ import annotations

from torchless.config import ConfigReader
from torchless.gemma_layers import GemmaConfig, forward_gemma, read_gemma
from torchless.plan import Plan

ARCHITECTURES = ("gemma",)
LIMITS = ("no windows",)


def read_config(reader: ConfigReader) -> GemmaConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("attention.sliding_window")
    # The first folders say "gelu" and mean its approximation, which the weights were trained with.
    return read_gemma(reader, activations=("gelu_pytorch_tanh", "gelu"))


def forward(plan: Plan, config: GemmaConfig) -> None:
    """Tokens to logits."""
    forward_gemma(plan, config)

"""Gemma 2: every second layer with a window, scores and logits softly capped, blocks normalised before and behind.

Gemma team 2024 (Gemma 2: improving open language models at a practical size).
"""

from __future__ import annotations

from torchless.config import ConfigReader
from torchless.gemma_layers import GemmaConfig, attention_scale, forward_gemma, layer_kinds, read_gemma
from torchless.plan import Plan

ARCHITECTURES = ("gemma2",)
LIMITS = ("windows in every second layer",)

_INTERVAL = 2


def read_config(reader: ConfigReader) -> GemmaConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.layer_types", layer_kinds(reader.integer("block_count"), _INTERVAL))
    reader.integer("attention.sliding_window")
    return read_gemma(
        reader,
        interval=_INTERVAL,
        scale=attention_scale(reader, wide_layers=46),
        # GGUF files of all published models have these caps, whether they say so or not.
        attention_softcap=reader.number("attn_logit_softcapping", 50.0),
        logit_softcap=reader.number("final_logit_softcapping", 30.0),
    )


def forward(plan: Plan, config: GemmaConfig) -> None:
    """Tokens to logits."""
    forward_gemma(plan, config)

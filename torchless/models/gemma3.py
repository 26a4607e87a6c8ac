"""Gemma 3: five layers with a window for each without, which turn heads at different speeds; heads are normalised.

Text alone. Gemma team 2025 (Gemma 3 technical report).
"""

from __future__ import annotations

from torchless.blocks import rope_spec
from torchless.config import ConfigReader
from torchless.gemma_layers import GemmaConfig, attention_scale, forward_gemma, layer_kinds, read_gemma
from torchless.plan import Plan

ARCHITECTURES = ("gemma3",)
LIMITS = ("text only", "windows in the published pattern")

_INTERVAL = 6


def read_config(reader: ConfigReader) -> GemmaConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.layer_types", layer_kinds(reader.integer("block_count"), _INTERVAL))
    reader.expect("hf.sliding_window_pattern", _INTERVAL)
    reader.expect("hf._sliding_window_pattern", _INTERVAL)
    reader.expect("attention.sliding_window_pattern", _INTERVAL)
    # No published model caps its scores or logits.
    reader.expect("attn_logit_softcapping", 0.0)
    reader.expect("final_logit_softcapping", 0.0)
    reader.integer("attention.sliding_window")
    heads, width = reader.integer("attention.head_count"), reader.integer("embedding_length")
    head_dim = reader.integer("attention.key_length", width // heads)
    return read_gemma(
        reader,
        interval=_INTERVAL,
        local_rope=rope_spec(head_dim, reader.number("rope.freq_base_swa", 10000.0), "half"),
        scale=attention_scale(reader, wide_layers=62),
        has_head_norms=True,
    )


def forward(plan: Plan, config: GemmaConfig) -> None:
    """Tokens to logits."""
    forward_gemma(plan, config)

"""Qwen3.5: three gated delta-nets for each attention layer, with an MLP or with experts beside a shared one.

Text alone. Rotary positions have three sections, which are the same position for text.

Qwen team 2026 (Qwen3.5).
"""

from __future__ import annotations

from torchless.config import ConfigReader
from torchless.delta_nets import DeltaNetConfig, forward_hybrid, read_delta_net
from torchless.expert_models import read_routing
from torchless.plan import Plan

ARCHITECTURES = ("qwen35", "qwen35moe")
LIMITS = ("text only", "no layers that draft")


def read_config(reader: ConfigReader) -> DeltaNetConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.rope_scaling.mrope_interleaved", True)
    sections = reader.metadata.get(f"{reader.architecture}.rope.dimension_sections")
    reader.expect("rope.dimension_sections", sections)  # of images' positions; text has one position
    routing = None
    if reader.architecture == "qwen35moe":
        reader.integer("expert_shared_feed_forward_length", 1)  # the tensors say it
        routing = read_routing(reader, scoring="softmax", normalised=True)
    return read_delta_net(reader, routing=routing, is_tiled=True)


def forward(plan: Plan, config: DeltaNetConfig) -> None:
    """Tokens to logits."""
    forward_hybrid(plan, config)

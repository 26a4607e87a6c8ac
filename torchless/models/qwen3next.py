"""Qwen3-Next: three gated delta-nets for each attention layer, experts beside a shared one in every layer.

Qwen team 2025 (Qwen3-Next).
"""

from __future__ import annotations

from torchless.config import ConfigReader
from torchless.delta_nets import DeltaNetConfig, forward_hybrid, read_delta_net
from torchless.expert_models import read_routing
from torchless.plan import Plan

ARCHITECTURES = ("qwen3next",)
LIMITS = ("no layers that draft",)


def read_config(reader: ConfigReader) -> DeltaNetConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.decoder_sparse_step", 1)
    reader.expect("hf.mlp_only_layers", [])
    reader.integer("expert_shared_feed_forward_length", 1)  # the tensors say it
    routing = read_routing(reader, scoring="softmax", normalised=True)
    return read_delta_net(reader, routing=routing, is_tiled=False)


def forward(plan: Plan, config: DeltaNetConfig) -> None:
    """Tokens to logits."""
    forward_hybrid(plan, config)

"""Settings that families with experts share."""

from __future__ import annotations

from torchless.config import ConfigReader
from torchless.decoder_settings import expect_layers_alike
from torchless.plan import Routing, Scoring

__all__ = ["expect_experts_everywhere", "read_routing"]


def read_routing(reader: ConfigReader, *, scoring: Scoring, normalised: bool) -> Routing:
    """How tokens choose experts.

    Args:
        scoring: what the architecture implies.
        normalised: whether weights are divided by their sum where the model does not say.
    """
    num_experts = reader.integer("expert_count")
    reader.integer("expert_feed_forward_length", 1)  # the tensors say it
    return Routing(
        num_experts,
        reader.integer("expert_used_count"),
        scoring,
        reader.flag("expert_weights_norm", normalised),
        reader.number("expert_weights_scale", 1.0),
    )


def expect_experts_everywhere(reader: ConfigReader) -> None:
    """Refuses Qwen models in which some layers have no experts, or a window."""
    reader.expect("hf.decoder_sparse_step", 1)
    reader.expect("hf.mlp_only_layers", [])
    expect_layers_alike(reader)

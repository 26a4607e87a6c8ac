"""OLMo 2: blocks are normalised behind instead of before, queries and keys over all heads together.

Team OLMo 2024 (2 OLMo 2 Furious).
"""

from __future__ import annotations

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.plan import Plan

ARCHITECTURES = ("olmo2",)
LIMITS = ("all layers alike: no OLMo 3",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    return read_settings(reader, layout="half")


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    # What folders call post_attention_layernorm stands before the MLP in most families: hence its name.
    behind = "post_attention_norm" if "blk.0.post_attention_norm.weight" in plan.shapes else "ffn_norm"
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = attention(plan, x, config, layer=layer, normed="rows")
        x = plan.add(x, plan.rms_norm(h, f"blk.{layer}.{behind}.weight", eps=config.norm_eps))
        h = gated_mlp(plan, x, layer=layer, activation="silu")
        x = plan.add(x, plan.rms_norm(h, f"blk.{layer}.post_ffw_norm.weight", eps=config.norm_eps))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))

"""Phi-3.5-MoE: a Phi-3 with LayerNorm and sixteen experts, two of which sparse mixing chooses for each token.

Abdin et al. 2024 (Phi-3 technical report), Liu et al. 2024 (GRIN: gradient-informed MoE; SparseMixer).
"""

from __future__ import annotations

from torchless.blocks import attention, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.expert_models import read_routing
from torchless.plan import Plan, Value

ARCHITECTURES = ("phimoe",)
LIMITS = ("llama.cpp computes it by other rules, see below",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    reader.expect("hf.router_jitter_noise", 0.01)  # half of what logits may differ by
    reader.expect("hf.input_jitter_noise", 0.0, reader.metadata.get("hf.input_jitter_noise"))  # of training
    reader.expect("hf.lm_head_bias", False, True)  # the bias itself is a tensor
    routing = read_routing(reader, scoring="sparse_mixer", normalised=False)
    return read_settings(reader, routing=routing, layout="half")


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    assert config.routing is not None
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = _norm(plan, x, f"blk.{layer}.attn_norm", config)
        x = plan.add(x, attention(plan, h, config, layer=layer))
        h = _norm(plan, x, f"blk.{layer}.ffn_norm", config)
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
    x = _norm(plan, plan.select_outputs(x), "output_norm", config)
    bias = "output.bias" if "output.bias" in plan.shapes else None
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight", bias=bias))


def _norm(plan: Plan, x: Value, name: str, config: ModelConfig) -> Value:
    return plan.layer_norm(x, f"{name}.weight", bias=f"{name}.bias", eps=config.norm_eps)

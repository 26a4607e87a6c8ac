"""Phi-1, Phi-1.5 and Phi-2: attention and an MLP without a gate side by side, behind one LayerNorm; biases everywhere.

Gunasekar et al. 2023 (Textbooks are all you need), Li et al. 2023 (phi-1.5).
"""

from __future__ import annotations

from torchless.blocks import attention, plain_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.plan import Plan, Value

ARCHITECTURES = ("phi2",)
LIMITS = ("no norms of queries and keys",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    reader.expect("hf.qk_layernorm", False)
    return read_settings(
        reader, layout="half", activations=("gelu_new", "gelu_pytorch_tanh"), norm="layer_norm"
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = _norm(plan, x, f"blk.{layer}.attn_norm", config)
        mixed = attention(plan, h, config, layer=layer)
        x = plan.add(x, plain_mlp(plan, h, layer=layer, activation="gelu_tanh"))
        x = plan.add(x, mixed)
    x = _norm(plan, plan.select_outputs(x), "output_norm", config)
    weight = "token_embd.weight" if config.tied else "output.weight"
    plan.set_output(plan.linear(x, weight, bias="output.bias"))


def _norm(plan: Plan, x: Value, name: str, config: ModelConfig) -> Value:
    return plan.layer_norm(x, f"{name}.weight", bias=f"{name}.bias", eps=config.norm_eps)

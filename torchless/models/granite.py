"""Granite 3 and Granite-MoE: factors on embeddings, scores, logits, and what each block adds to the residual stream.

With experts (`granitemoe`) a layer may have one besides that all tokens share.

IBM Granite team 2024 (Granite 3.0 language models).
"""

from __future__ import annotations

from dataclasses import replace

from torchless.blocks import attention, gated_mlp, routed_mlp, shared_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.expert_models import read_routing
from torchless.plan import Plan, Value

ARCHITECTURES = ("granite", "granitemoe")
LIMITS = ("attention in every layer: no Granite 4",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    reader.expect("hf.mlp_bias", False, True)  # the biases themselves are tensors
    routing = None
    if reader.architecture == "granitemoe":
        reader.count("expert_shared_feed_forward_length")  # the tensors say it
        routing = read_routing(reader, scoring="softmax_chosen", normalised=False)
    return replace(
        read_settings(reader, routing=routing, layout=None),
        attention_scale=reader.number("attention.scale"),
        embedding_scale=reader.number("embedding_scale", 1.0),
        residual_scale=reader.number("residual_scale", 1.0),
        logit_scale=1.0 / reader.number("logit_scale", 1.0),  # a divisor
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight", scale=config.embedding_scale)
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        h = attention(plan, h, config, layer=layer)
        x = plan.add(x, plan.scale(h, config.residual_scale))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, plan.scale(_mlp(plan, h, config, layer), config.residual_scale))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    logits = plan.linear(x, "token_embd.weight" if config.tied else "output.weight")
    plan.set_output(plan.scale(logits, config.logit_scale))


def _mlp(plan: Plan, x: Value, config: ModelConfig, layer: int) -> Value:
    if config.routing is None:
        return gated_mlp(plan, x, layer=layer, activation="silu")
    mixed = routed_mlp(plan, x, config.routing, layer=layer, activation="silu")
    if f"blk.{layer}.ffn_down_shexp.weight" not in plan.shapes:
        return mixed
    return plan.add(mixed, shared_mlp(plan, x, layer=layer, activation="silu"))

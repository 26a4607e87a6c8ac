"""Llama 1 to 3.2, Code Llama, TinyLlama, Mistral with and without a sliding window, and Mixtral.

Touvron et al. 2023 (Llama), Jiang et al. 2023 (Mistral 7B) and 2024 (Mixtral). Pre-norm transformer blocks with rotary
positions, grouped-query attention and a gated MLP or, in Mixtral, experts that are such MLPs.
"""

from __future__ import annotations

from torchless.blocks import attention, gated_mlp, read_rope, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.expert_models import read_routing
from torchless.plan import Plan

ARCHITECTURES = ("llama", "mistral")


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hidden_act", "silu")
    routing = None
    if reader.count("expert_count"):
        routing = read_routing(reader, scoring="softmax", normalised=True)
    else:
        reader.expect("expert_count", 0)
        reader.expect("expert_used_count", 0)
    reader.expect("hf.attention_bias", False, True)  # the biases themselves are tensors
    reader.expect("hf.mlp_bias", False, True)
    reader.expect("hf.pretraining_tp", 1)
    reader.expect("tensor_data_layout", "Meta AI original pth")
    num_heads = reader.integer("attention.head_count")
    width = reader.integer("embedding_length")
    head_dim = reader.integer("attention.key_length", width // num_heads)
    reader.expect("attention.value_length", head_dim)
    context_length = reader.integer("context_length")
    tensors = reader.source.tensors
    tied = "output.weight" not in tensors
    reader.expect("tie_word_embeddings", tied, True)  # a stored output.weight is used even if it is a copy
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("vocab_size", vocab_size)
    return ModelConfig(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=context_length,
        vocab_size=vocab_size,
        num_layers=reader.integer("block_count"),
        embedding_length=width,
        feed_forward_length=reader.integer("feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=reader.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        norm_eps=reader.number("attention.layer_norm_rms_epsilon", 1e-5),
        rope=read_rope(
            reader,
            rotated=reader.integer("rope.dimension_count", head_dim),
            context_length=context_length,
            frequency_factors=reader.float_tensor("rope_freqs.weight"),
        ),
        window=reader.integer("attention.sliding_window") if reader.has("attention.sliding_window") else None,
        tied=tied,
        routing=routing,
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, attention(plan, h, config, layer=layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        if config.routing is None:
            x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
        else:
            x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))

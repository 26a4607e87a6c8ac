"""What hybrids share in which most layers are gated delta-nets: settings, and the two kinds of layers.

Yang, Kautz & Hatamizadeh 2024 (Gated delta networks); Qwen team 2025 (Qwen3-Next).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torchless.blocks import gated_mlp, gated_shared_mlp, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.errors import FormatError
from torchless.plan import Piece, Plan, Routing, Value

__all__ = ["DeltaNetConfig", "forward_hybrid", "read_delta_net"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaNetConfig(ModelConfig):
    """Sizes of a hybrid.

    Attributes:
        interval: every so many layers one is attention, the last of them; the others are delta-nets.
        num_key_heads, key_dim: heads of queries and keys of a delta-net, and their width.
        num_value_heads, value_dim: heads of values, and their width.
        is_tiled: see `plan.GatedDelta`.
    """

    interval: int
    num_key_heads: int
    key_dim: int
    num_value_heads: int
    value_dim: int
    is_tiled: bool


def read_delta_net(reader: ConfigReader, *, routing: Routing | None, is_tiled: bool) -> DeltaNetConfig:
    """The settings, those of attention included."""
    interval = reader.integer("full_attention_interval", 4)
    kinds = ["linear_attention"] * (interval - 1) + ["full_attention"]
    num_layers = reader.integer("block_count") - reader.count("nextn_predict_layers")
    reader.count("hf.mtp_num_hidden_layers")  # layers that draft, whose tensors are left out
    reader.flag("hf.mtp_use_dedicated_embeddings", False)
    reader.expect("hf.layer_types", (kinds * -(-num_layers // interval))[:num_layers])
    reader.expect("hf.attn_output_gate", True)
    reader.expect("hf.mamba_ssm_dtype", "float32")
    reader.integer("ssm.conv_kernel")  # the tensors say it
    num_heads, inner = reader.integer("ssm.time_step_rank"), reader.integer("ssm.inner_size")
    if inner % num_heads:
        raise FormatError(
            f"{reader.source.path}: {reader.architecture}.ssm.inner_size is {inner}, expected a multiple of "
            f"ssm.time_step_rank, {num_heads}"
        )
    settings = read_settings(reader, routing=routing, layout="half")
    return DeltaNetConfig(
        **{
            **{field.name: getattr(settings, field.name) for field in fields(settings)},
            "num_layers": num_layers,
        },
        interval=interval,
        num_key_heads=reader.integer("ssm.group_count"),
        key_dim=reader.integer("ssm.state_size"),
        num_value_heads=num_heads,
        value_dim=inner // num_heads,
        is_tiled=is_tiled,
    )


def forward_hybrid(plan: Plan, config: DeltaNetConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        is_attention = (layer + 1) % config.interval == 0
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, (_attention if is_attention else _delta_net)(plan, h, config, layer))
        in_gguf = f"blk.{layer}.post_attention_norm.weight"
        name = in_gguf if in_gguf in plan.shapes else f"blk.{layer}.ffn_norm.weight"
        h = plan.rms_norm(x, name, eps=config.norm_eps)
        if config.routing is None:
            x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
            continue
        shared = gated_shared_mlp(plan, h, layer=layer, activation="silu")
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
        x = plan.add(x, shared)
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))


def _attention(plan: Plan, x: Value, config: DeltaNetConfig, layer: int) -> Value:
    """Attention whose output is gated: a head of the query projection is the query, then its gate."""
    prefix, width = f"blk.{layer}.attn_", config.head_dim
    both = plan.linear(x, f"{prefix}q.weight")

    def rotated(heads: Value, part: str, num_heads: int) -> Value:
        heads = plan.rms_norm(heads, f"{prefix}{part}_norm.weight", eps=config.norm_eps, num_heads=num_heads)
        return plan.rope(heads, num_heads=num_heads, head_dim=width, spec=config.rope)

    mixed = plan.attention(
        rotated(
            plan.columns([Piece(both, 0, width, 2 * width)], count=config.num_heads), "q", config.num_heads
        ),
        rotated(plan.linear(x, f"{prefix}k.weight"), "k", config.num_kv_heads),
        plan.linear(x, f"{prefix}v.weight"),
        layer=layer,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=width,
        scale=1.0 / math.sqrt(width),
    )
    gate = plan.columns([Piece(both, width, width, 2 * width)], count=config.num_heads)
    return plan.linear(plan.glu(gate, mixed, activation="sigmoid"), f"{prefix}output.weight")


def _delta_net(plan: Plan, x: Value, config: DeltaNetConfig, layer: int) -> Value:
    prefix = f"blk.{layer}."
    heads, qkv, gate = config.num_value_heads, *_projections(plan, x, config, prefix)
    if f"{prefix}ssm_ba.weight" in plan.shapes:  # of each key head: its betas, then its steps
        numbers, width = plan.linear(x, f"{prefix}ssm_ba.weight"), heads // config.num_key_heads
        beta, step = Piece(numbers, 0, width, 2 * width), Piece(numbers, width, width, 2 * width)
    else:
        beta = Piece(plan.linear(x, f"{prefix}ssm_beta.weight"), 0, heads)
        step = Piece(plan.linear(x, f"{prefix}ssm_alpha.weight"), 0, heads)
    mixed = plan.gated_delta(
        plan.causal_conv(qkv, f"{prefix}ssm_conv1d.weight"),
        step=step,
        beta=beta,
        decay=f"{prefix}ssm_a",
        step_bias=f"{prefix}ssm_dt.bias",
        num_key_heads=config.num_key_heads,
        num_heads=heads,
        key_dim=config.key_dim,
        value_dim=config.value_dim,
        is_tiled=config.is_tiled,
    )
    normed = plan.rms_norm(mixed, f"{prefix}ssm_norm.weight", eps=config.norm_eps, num_heads=heads)
    return plan.linear(plan.glu(gate, normed, activation="silu"), f"{prefix}ssm_out.weight")


def _projections(plan: Plan, x: Value, config: DeltaNetConfig, prefix: str) -> tuple[Value, Value]:
    """Queries, keys and values together, and the gate of the output."""
    if f"{prefix}ssm_in.weight" not in plan.shapes:
        return plan.linear(x, f"{prefix}attn_qkv.weight"), plan.linear(x, f"{prefix}attn_gate.weight")
    # Early GGUF files: for each key head its query, its key, its values and their gates.
    whole, keys, key_dim = plan.linear(x, f"{prefix}ssm_in.weight"), config.num_key_heads, config.key_dim
    inner = config.num_value_heads // keys * config.value_dim
    stride = 2 * (key_dim + inner)

    def parts(start: int, width: int) -> list[Piece]:
        return [Piece(whole, head * stride + start, width) for head in range(keys)]

    qkv = plan.columns([*parts(0, key_dim), *parts(key_dim, key_dim), *parts(2 * key_dim, inner)])
    return qkv, plan.columns(parts(2 * key_dim + inner, inner))

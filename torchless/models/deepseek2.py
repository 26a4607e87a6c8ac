"""DeepSeek V2 and V3: latent attention, and experts in groups beside shared ones.

DeepSeek-AI 2024 (DeepSeek-V2, DeepSeek-V3 technical reports). Keys and values of all heads come from one narrow vector
for each token, and only that is kept in the pages, with one rotated key: attention then has a single key/value head. A
head's part of the key projection is applied to the query instead, and its value projection to the mixed vectors:
``(W_k c) . q = c . (W_k^T q)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torchless.blocks import gated_mlp, read_rope, routed_mlp, shared_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.expert_models import read_routing
from torchless.plan import Piece, Plan, Routing, Value

ARCHITECTURES = ("deepseek2",)
LIMITS = ("no layers that draft",)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig(ModelConfig):
    """Sizes of a model with latent attention; `head_dim` is what a token keeps.

    Attributes:
        latent: width of the vector that keys and values are made of.
        plain, rotated: elements of a query head without and with rotary positions.
        value: width of a value head.
        scale: of attention scores.
        num_dense: layers before the first with experts.
    """

    latent: int
    plain: int
    rotated: int
    value: int
    scale: float
    num_dense: int


def read_config(reader: ConfigReader) -> LatentConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias"):
        reader.expect(f"hf.{name}", False)
    reader.expect("hf.pretraining_tp", 1)
    reader.expect("hf.moe_layer_freq", 1)
    reader.expect("hf.rope_interleave", True)
    for name in ("ep_size", "aux_loss_alpha", "seq_aux", "num_nextn_predict_layers"):
        reader.number(f"hf.{name}", 0.0)  # of training, or of layers that draft, whose tensors are left out
    tensors = reader.source.tensors
    latent, rotated = reader.integer("attention.kv_lora_rank"), reader.integer("rope.dimension_count")
    reader.integer("attention.q_lora_rank", 1)  # the tensors say it
    head, value = reader.integer("attention.key_length_mla"), reader.integer("attention.value_length_mla")
    reader.expect("attention.key_length", latent + rotated)
    reader.expect("attention.value_length", latent)
    reader.expect("attention.head_count_kv", 1)
    context_length = reader.integer("context_length")
    rope = read_rope(reader, rotated=rotated, context_length=context_length)
    factor = reader.number("rope.scaling.factor", 1.0)
    growth = 1.0 + reader.number("rope.scaling.yarn_log_multiplier", 0.0) * math.log(max(factor, 1.0))
    tied = "output.weight" not in tensors
    reader.expect("tie_word_embeddings", tied, True)
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("vocab_size", vocab_size)
    num_layers = reader.integer("block_count")
    return LatentConfig(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=context_length,
        vocab_size=vocab_size,
        num_layers=num_layers,
        embedding_length=reader.integer("embedding_length"),
        feed_forward_length=reader.integer("feed_forward_length"),
        num_heads=reader.integer("attention.head_count"),
        num_kv_heads=1,
        head_dim=latent + rotated,
        norm_eps=reader.number("attention.layer_norm_rms_epsilon", 1e-6),
        rope=replace(rope, layout="interleaved", magnitude=1.0),
        window=None,
        tied=tied,
        routing=_routing(reader),
        latent=latent,
        plain=head - rotated,
        rotated=rotated,
        value=value,
        scale=growth * growth / math.sqrt(head),
        num_dense=reader.count("leading_dense_block_count"),
    )


def _routing(reader: ConfigReader) -> Routing:
    reader.count("expert_shared_count")  # the tensors say it
    kind = reader.integer("expert_gating_func", 1)
    reader.expect("expert_gating_func", 1, 2)
    is_sigmoid = kind == 2
    routing = read_routing(reader, scoring="sigmoid" if is_sigmoid else "softmax", normalised=is_sigmoid)
    groups, used = reader.integer("expert_group_count", 1), reader.integer("expert_group_used_count", 1)
    reader.expect("hf.scoring_func", "sigmoid" if is_sigmoid else "softmax")
    reader.expect("hf.topk_method", *(("noaux_tc",) if is_sigmoid else ("greedy", "group_limited_greedy")))
    if reader.metadata.get("hf.topk_method") == "greedy":
        groups = used = 1
    if groups == 1:
        return routing
    return replace(routing, num_groups=groups, num_used_groups=used, group_best=2 if is_sigmoid else 1)


def forward(plan: Plan, config: LatentConfig) -> None:
    """Tokens to logits."""
    assert config.routing is not None
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, _attention(plan, h, config, layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        if layer < config.num_dense:
            x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
            continue
        shared = shared_mlp(plan, h, layer=layer, activation="silu")
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
        x = plan.add(x, shared)
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))


def _attention(plan: Plan, x: Value, config: LatentConfig, layer: int) -> Value:
    prefix = f"blk.{layer}.attn_"
    heads, latent, plain, rotated = config.num_heads, config.latent, config.plain, config.rotated
    if f"{prefix}q_a.weight" in plan.shapes:
        narrow = plan.linear(x, f"{prefix}q_a.weight")
        narrow = plan.rms_norm(narrow, f"{prefix}q_a_norm.weight", eps=config.norm_eps)
        query = plan.linear(narrow, f"{prefix}q_b.weight")
    else:
        query = plan.linear(x, f"{prefix}q.weight")
    kept = plan.linear(x, f"{prefix}kv_a_mqa.weight")
    normed = plan.columns([Piece(kept, 0, latent)])
    normed = plan.rms_norm(normed, f"{prefix}kv_a_norm.weight", eps=config.norm_eps)
    through_key = plan.heads_linear(
        plan.columns([Piece(query, 0, plain, plain + rotated)], count=heads), f"{prefix}k_b.weight"
    )
    # A head: the rotated elements, then the latent ones.
    q = plan.columns(
        [Piece(query, plain, rotated, plain + rotated), Piece(through_key, 0, latent, latent)], count=heads
    )
    k = plan.columns([Piece(kept, latent, rotated), Piece(normed, 0, latent)])
    v = plan.columns(
        [Piece(kept, latent, rotated), Piece(normed, 0, latent)]
    )  # of equal width; the first are dropped
    mixed = plan.attention(
        plan.rope(q, num_heads=heads, head_dim=config.head_dim, spec=config.rope),
        plan.rope(k, num_heads=1, head_dim=config.head_dim, spec=config.rope),
        v,
        layer=layer,
        num_heads=heads,
        num_kv_heads=1,
        head_dim=config.head_dim,
        scale=config.scale,
    )
    values = plan.columns([Piece(mixed, rotated, latent, config.head_dim)], count=heads)
    return plan.linear(plan.heads_linear(values, f"{prefix}v_b.weight"), f"{prefix}output.weight")

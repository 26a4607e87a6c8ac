"""Gemma 3n: four residual streams of which layers compute one and predict the others, and weights beside the layers.

Text alone. Layers mix the streams before and after they compute (AltUp, Baykal et al. 2023), add a projection of low
rank (LAuReL, Menghani et al. 2024), keep only what stands out of a gate in the first layers, and get an embedding of
the token each. The last ones read caches of others. Gemma team 2025 (config.json and code of the published models).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torchless.blocks import gated_mlp, rope_spec
from torchless.config import ConfigReader, ModelConfig
from torchless.layer_inputs import add_layer_input, layer_inputs, shared_cache
from torchless.plan import Piece, Plan, RopeSpec, Value

ARCHITECTURES = ("gemma3n",)
LIMITS = ("text only",)

_INTERVAL = 5
"""Every so many layers one looks back over all tokens, where the file does not say which."""

_LEAST_SQUARE = 1e-5
"""Streams are not made larger than by this mean square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma3nConfig(ModelConfig):
    """Sizes of a Gemma 3n model; `window` is that of the layers that have one, `rope` that of the others.

    Attributes:
        local_rope: rotation in layers with a window.
        are_local: for each layer, whether it has a window.
        num_shared: how many layers, the last ones, have no keys and values of their own.
        input_length: elements that each layer gets of every token.
        num_streams, active: residual streams, and which of them layers compute.
        deviations: for each layer, by how many standard deviations a gate must exceed its mean; -inf = all counts.
    """

    local_rope: RopeSpec
    are_local: tuple[bool, ...]
    num_shared: int
    input_length: int
    num_streams: int
    active: int
    deviations: tuple[float, ...]


def read_config(reader: ConfigReader) -> Gemma3nConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.hidden_activation", "gelu_pytorch_tanh")
    reader.expect("hf.attention_bias", False)
    reader.expect("hf.altup_correct_scale", True)
    tensors = reader.source.tensors
    num_layers = reader.integer("block_count")
    kinds = reader.flags("attention.sliding_window_pattern", num_layers)
    are_local = kinds or tuple((i + 1) % _INTERVAL != 0 for i in range(num_layers))
    unshared = are_local[: num_layers - reader.count("attention.shared_kv_layers")]
    if set(unshared) != set(are_local):
        raise reader.wrong("attention.shared_kv_layers", "fewer, so that each kind of layers has a cache")
    # Files may hold keys and values of layers that share another one's; nobody multiplies with them.
    parts = ("attn_k", "attn_v", "attn_k_norm")
    unread = {f"blk.{i}.{part}.weight" for i in range(len(unshared), num_layers) for part in parts}
    reader.tensors_read |= unread & set(tensors)
    tied = "output.weight" not in tensors
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("tie_word_embeddings", tied, True)
    reader.expect("vocab_size", vocab_size)
    head_dim = reader.integer("attention.key_length")
    reader.expect("attention.value_length", head_dim)
    reader.expect("rope.dimension_count", head_dim)
    num_streams, active = reader.integer("altup.num_inputs", 4), reader.count("altup.active_idx")
    if num_streams < 2 or active >= num_streams:
        raise reader.wrong("altup.active_idx", f"the number of one of {num_streams} streams, two or more")
    cap = reader.number("final_logit_softcapping", 30.0)
    return Gemma3nConfig(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=reader.integer("context_length"),
        vocab_size=vocab_size,
        num_layers=num_layers,
        embedding_length=reader.integer("embedding_length"),
        feed_forward_length=max(reader.integers("feed_forward_length", num_layers)),
        num_heads=reader.integer("attention.head_count"),
        num_kv_heads=reader.integer("attention.head_count_kv"),
        head_dim=head_dim,
        norm_eps=reader.number("attention.layer_norm_rms_epsilon", 1e-6),
        rope=rope_spec(head_dim, reader.number("rope.freq_base", 1e6), "half"),
        window=reader.integer("attention.sliding_window"),
        tied=tied,
        logit_softcap=cap or None,
        local_rope=rope_spec(head_dim, reader.number("rope.freq_base_swa", 1e4), "half"),
        are_local=are_local,
        num_shared=num_layers - len(unshared),
        input_length=reader.integer("embedding_length_per_layer_input"),
        num_streams=num_streams,
        active=active,
        deviations=reader.bounds("activation_sparsity_scale", num_layers, -math.inf),
    )


def forward(plan: Plan, config: Gemma3nConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight", scale=math.sqrt(config.embedding_length))
    inputs = layer_inputs(plan, x, config.num_layers, config.input_length, config.norm_eps)
    streams = _spread(plan, x, config)
    for layer in range(config.num_layers):
        predicted = _predict(plan, streams, config, layer)
        computed = _compute(plan, predicted[config.active], config, layer)
        streams = _correct(plan, predicted, computed, config, layer)
        x = plan.scale_columns(streams[config.active], f"blk.{layer}.altup_correct_scale.weight")
        h = add_layer_input(plan, x, inputs, layer, config.input_length)
        h = plan.rms_norm(h, f"blk.{layer}.post_norm.weight", eps=config.norm_eps)
        streams = [streams[0], *(plan.add(stream, h) for stream in streams[1:])]
    x = _merge(plan, [plan.select_outputs(stream) for stream in streams])
    x = plan.rms_norm(x, "output_norm.weight", eps=config.norm_eps)
    logits = plan.linear(x, "token_embd.weight" if config.tied else "output.weight")
    plan.set_output(logits if config.logit_softcap is None else plan.soft_cap(logits, config.logit_softcap))


def _spread(plan: Plan, x: Value, config: Gemma3nConfig) -> list[Value]:
    """The embedding and, as large as it, projections of it: the streams."""
    copies = plan.columns([Piece(x, 0, x.width)] * (config.num_streams - 1))
    return [x, *_parts(plan, plan.heads_linear(copies, "altup_proj.weight"), x)]


def _merge(plan: Plan, streams: Sequence[Value]) -> Value:
    """The mean of the first stream and, as large as it, projections of the others."""
    first, *others = streams
    joined = plan.columns([Piece(stream, 0, stream.width) for stream in others])
    total = first
    for part in _parts(plan, plan.heads_linear(joined, "altup_unembd_proj.weight"), first):
        total = plan.add(total, part)
    return plan.scale(total, 1.0 / len(streams))


def _parts(plan: Plan, joined: Value, like: Value) -> list[Value]:
    """Values of the width of `like` that stand side by side, each as large as it."""
    starts = range(0, joined.width, like.width)
    parts = [plan.columns([Piece(joined, start, like.width)]) for start in starts]
    return [plan.match_magnitude(part, like, floor=_LEAST_SQUARE) for part in parts]


def _modalities(plan: Plan, x: Value, config: Gemma3nConfig, layer: int) -> Value:
    """What the mixing of a token's streams depends on: one number for each stream, within -1 .. 1."""
    h = plan.rms_norm(x, f"blk.{layer}.altup_router_norm.weight", eps=config.norm_eps)
    routed = plan.linear(plan.scale(h, 1.0 / x.width), f"blk.{layer}.altup_router.weight")
    return plan.soft_cap(routed, 1.0)


def _predict(plan: Plan, streams: list[Value], config: Gemma3nConfig, layer: int) -> list[Value]:
    """Each stream plus a mixture of all."""
    seen = _modalities(plan, streams[config.active], config, layer)
    factors = plan.linear(seen, f"blk.{layer}.altup_predict_coef.weight")
    count = len(streams)
    return [plan.weighted_sum(stream, streams, factors, first=i * count) for i, stream in enumerate(streams)]


def _correct(
    plan: Plan, predicted: list[Value], computed: Value, config: Gemma3nConfig, layer: int
) -> list[Value]:
    """Each prediction plus its share, about all, of what the computed stream differs by from its own."""
    seen = _modalities(plan, computed, config, layer)
    factors = plan.linear(seen, f"blk.{layer}.altup_correct_coef.weight")
    news = plan.add(computed, plan.scale(predicted[config.active], -1.0))
    return [
        plan.weighted_sum(plan.add(stream, news), [news], factors, first=i)
        for i, stream in enumerate(predicted)
    ]


def _compute(plan: Plan, x: Value, config: Gemma3nConfig, layer: int) -> Value:
    """The layer as others know it, and LAuReL beside its attention."""
    prefix, eps = f"blk.{layer}.", config.norm_eps
    h = plan.rms_norm(x, f"{prefix}attn_norm.weight", eps=eps)
    low = plan.linear(plan.linear(h, f"{prefix}laurel_l.weight"), f"{prefix}laurel_r.weight")
    learned = plan.add(h, plan.rms_norm(low, f"{prefix}laurel_post_norm.weight", eps=eps))
    mixed = _attention(plan, h, config, layer)
    x = plan.add(x, plan.rms_norm(mixed, f"{prefix}post_attention_norm.weight", eps=eps))
    x = plan.scale(plan.add(x, learned), math.sqrt(0.5))
    h = _feed_forward(plan, plan.rms_norm(x, f"{prefix}ffn_norm.weight", eps=eps), config, layer)
    return plan.add(x, plan.rms_norm(h, f"{prefix}post_ffw_norm.weight", eps=eps))


def _attention(plan: Plan, x: Value, config: Gemma3nConfig, layer: int) -> Value:
    prefix, eps, head_dim = f"blk.{layer}.attn_", config.norm_eps, config.head_dim
    is_local = config.are_local[layer]

    def rotated(part: str, num_heads: int) -> Value:
        value = plan.linear(x, f"{prefix}{part}.weight")
        value = plan.rms_norm(value, f"{prefix}{part}_norm.weight", eps=eps, num_heads=num_heads)
        rope = config.local_rope if is_local else config.rope
        return plan.rope(value, num_heads=num_heads, head_dim=head_dim, spec=rope)

    q = rotated("q", config.num_heads)
    k = v = None
    owner = shared_cache(config.are_local, config.num_shared, layer)
    if owner == layer:
        k = rotated("k", config.num_kv_heads)
        v = plan.linear(x, f"{prefix}v.weight")
        v = plan.rms_norm(v, None, eps=eps, num_heads=config.num_kv_heads)
    mixed = plan.attention(
        q,
        k,
        v,
        layer=owner,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=head_dim,
        scale=1.0,
        window=config.window if is_local else None,
    )
    return plan.linear(mixed, f"{prefix}output.weight")


def _feed_forward(plan: Plan, x: Value, config: Gemma3nConfig, layer: int) -> Value:
    """The MLP; in some layers only what stands out of the gate counts."""
    if config.deviations[layer] == -math.inf:
        return gated_mlp(plan, x, layer=layer, activation="gelu_tanh")
    gate = plan.linear(x, f"blk.{layer}.ffn_gate.weight")
    gate = plan.keep_above(gate, deviations=config.deviations[layer])
    gated = plan.glu(gate, plan.linear(x, f"blk.{layer}.ffn_up.weight"), activation="gelu_tanh")
    return plan.linear(gated, f"blk.{layer}.ffn_down.weight")

"""Gemma 4: layers with and without a window have heads of their own sizes, and the last ones read caches of others.

Text alone. Some models add to each layer what a table of its own says of the token; some have experts beside the MLP of
every layer. Values are normalised, and layers without a window may take them from the same product as keys. Only some
pairs of their heads turn, the fastest ones. Gemma team 2026 (config.json and code of the published models).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torchless.blocks import gated_mlp, rope_spec, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.expert_models import read_routing
from torchless.layer_inputs import add_layer_input, layer_inputs, shared_cache
from torchless.plan import Plan, RopeSpec, Value

ARCHITECTURES = ("gemma4",)
LIMITS = ("text only",)


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention of the layers of one kind: key/value heads, elements of a head, rotation, and window (None = all)."""

    num_kv_heads: int
    head_dim: int
    rope: RopeSpec
    window: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4Config(ModelConfig):
    """Sizes of a Gemma 4 model; `num_kv_heads`, `head_dim` and `rope` are those of layers without a window.

    Attributes:
        local, whole: heads of the layers with a window and of those without.
        are_local: for each layer, whether it has a window.
        num_shared: how many layers, the last ones, have no keys and values of their own.
        input_length: elements that each layer gets of every token, 0 = none.
        layer_scales: factors on what each layer gives.
    """

    local: Heads
    whole: Heads
    are_local: tuple[bool, ...]
    num_shared: int
    input_length: int
    layer_scales: tuple[float, ...]

    def heads(self, layer: int) -> Heads:
        """Of one layer."""
        return self.local if self.are_local[layer] else self.whole


def read_config(reader: ConfigReader) -> Gemma4Config:
    """Reads the settings, refusing those that would change the arithmetic below."""
    reader.expect("hf.hidden_activation", "gelu_pytorch_tanh")
    reader.expect("hf.use_bidirectional_attention", "vision")  # text is causal
    reader.expect("hf.attention_bias", False)
    num_layers = reader.integer("block_count")
    tensors = reader.source.tensors
    are_local = reader.flags("attention.sliding_window_pattern", num_layers)
    if are_local is None:
        raise reader.wrong(
            "attention.sliding_window_pattern", f"true or false for each of {num_layers} layers"
        )
    kinds = _read_heads(reader, are_local)
    unshared = are_local[: num_layers - reader.count("attention.shared_kv_layers")]
    if set(unshared) != set(are_local):
        raise reader.wrong("attention.shared_kv_layers", "fewer, so that each kind of layers has a cache")
    takes_keys = any(
        f"blk.{i}.attn_v.weight" not in tensors for i, is_local in enumerate(unshared) if not is_local
    )
    reader.expect("hf.attention_k_eq_v", takes_keys)
    routing = None
    if reader.has("expert_count"):
        routing = read_routing(reader, scoring="softmax", normalised=True)
    tied = "output.weight" not in tensors
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("tie_word_embeddings", tied, True)
    for key in ("vocab_size", "hf.vocab_size_per_layer_input"):
        reader.expect(key, vocab_size)
    cap = reader.number("final_logit_softcapping", 0.0)
    whole = kinds[False]
    return Gemma4Config(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=reader.integer("context_length"),
        vocab_size=vocab_size,
        num_layers=num_layers,
        embedding_length=reader.integer("embedding_length"),
        feed_forward_length=max(reader.integers("feed_forward_length", num_layers)),
        num_heads=reader.integer("attention.head_count"),
        num_kv_heads=whole.num_kv_heads,
        head_dim=whole.head_dim,
        norm_eps=reader.number("attention.layer_norm_rms_epsilon", 1e-6),
        rope=whole.rope,
        window=None,
        tied=tied,
        routing=routing,
        logit_softcap=cap or None,
        local=kinds[True],
        whole=whole,
        are_local=are_local,
        num_shared=num_layers - len(unshared),
        input_length=reader.count("embedding_length_per_layer_input"),
        layer_scales=tuple(
            reader.scalar_tensor(f"blk.{i}.layer_output_scale.weight", 1.0) for i in range(num_layers)
        ),
    )


def _read_heads(reader: ConfigReader, are_local: tuple[bool, ...]) -> dict[bool, Heads]:
    """Heads of the layers with a window (True) and of those without."""
    counts = reader.integers("attention.head_count_kv", len(are_local))
    found = {}
    for is_local, suffix in ((True, "_swa"), (False, "")):
        of_kind = {count for count, local in zip(counts, are_local, strict=True) if local == is_local}
        if len(of_kind) > 1:
            raise reader.wrong("attention.head_count_kv", "as many in all layers of a kind")
        head_dim = reader.integer(f"attention.key_length{suffix}")
        reader.expect(f"attention.value_length{suffix}", head_dim)
        reader.expect(f"rope.dimension_count{suffix}", head_dim)
        theta = reader.number(f"rope.freq_base{suffix}", 1e4 if is_local else 1e6)
        # Divisors of the frequencies: without end for pairs that stay as they are.
        factors = None if is_local else reader.float_tensor("rope_freqs.weight", most=math.inf)
        if factors is None and not is_local:
            num_turned = int(reader.number("hf.global_rotary_factor", 1.0) * head_dim / 2)
            factors = (1.0,) * num_turned + (math.inf,) * (head_dim // 2 - num_turned)
        rope = rope_spec(head_dim, theta, "half", frequency_factors=factors)
        window = reader.integer("attention.sliding_window") if is_local else None
        found[is_local] = Heads(max(of_kind, default=1), head_dim, rope, window)
    return found


def forward(plan: Plan, config: Gemma4Config) -> None:
    """Tokens to logits."""
    eps = config.norm_eps
    x = plan.embed("token_embd.weight", scale=math.sqrt(config.embedding_length))
    inputs = (
        layer_inputs(plan, x, config.num_layers, config.input_length, eps) if config.input_length else None
    )
    for layer in range(config.num_layers):
        prefix = f"blk.{layer}."
        h = plan.rms_norm(x, f"{prefix}attn_norm.weight", eps=eps)
        h = _attention(plan, h, config, layer)
        x = plan.add(x, plan.rms_norm(h, f"{prefix}post_attention_norm.weight", eps=eps))
        h = _feed_forward(plan, x, config, layer)
        x = plan.add(x, plan.rms_norm(h, f"{prefix}post_ffw_norm.weight", eps=eps))
        if inputs is not None:
            h = add_layer_input(plan, x, inputs, layer, config.input_length)
            x = plan.add(x, plan.rms_norm(h, f"{prefix}post_norm.weight", eps=eps))
        x = plan.scale(x, config.layer_scales[layer])
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=eps)
    logits = plan.linear(x, "token_embd.weight" if config.tied else "output.weight")
    plan.set_output(logits if config.logit_softcap is None else plan.soft_cap(logits, config.logit_softcap))


def _attention(plan: Plan, x: Value, config: Gemma4Config, layer: int) -> Value:
    heads, prefix, eps = config.heads(layer), f"blk.{layer}.attn_", config.norm_eps
    num_heads, num_kv_heads, head_dim = config.num_heads, heads.num_kv_heads, heads.head_dim

    def rotated(value: Value, part: str, count: int) -> Value:
        value = plan.rms_norm(value, f"{prefix}{part}_norm.weight", eps=eps, num_heads=count)
        return plan.rope(value, num_heads=count, head_dim=head_dim, spec=heads.rope)

    q = rotated(plan.linear(x, f"{prefix}q.weight"), "q", num_heads)
    k = v = None
    owner = shared_cache(config.are_local, config.num_shared, layer)
    if owner == layer:
        keys = plan.linear(x, f"{prefix}k.weight")
        takes_keys = heads.window is None and f"{prefix}v.weight" not in plan.shapes
        values = keys if takes_keys else plan.linear(x, f"{prefix}v.weight")
        k, v = rotated(keys, "k", num_kv_heads), plan.rms_norm(values, None, eps=eps, num_heads=num_kv_heads)
    mixed = plan.attention(
        q,
        k,
        v,
        layer=owner,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        scale=1.0,
        window=heads.window,
    )
    return plan.linear(mixed, f"{prefix}output.weight")


def _feed_forward(plan: Plan, x: Value, config: Gemma4Config, layer: int) -> Value:
    """The MLP, and beside it, where a model has them, experts, with norms of their own before them and their router."""
    prefix, eps = f"blk.{layer}.", config.norm_eps
    h = gated_mlp(
        plan, plan.rms_norm(x, f"{prefix}ffn_norm.weight", eps=eps), layer=layer, activation="gelu_tanh"
    )
    if config.routing is None:
        return h
    h = plan.rms_norm(h, f"{prefix}post_ffw_norm_1.weight", eps=eps)
    choosing = plan.rms_norm(x, f"{prefix}ffn_gate_inp.scale", eps=eps)
    logits = plan.scale(plan.linear(choosing, f"{prefix}ffn_gate_inp.weight"), config.embedding_length**-0.5)
    mixed = routed_mlp(
        plan,
        plan.rms_norm(x, f"{prefix}pre_ffw_norm_2.weight", eps=eps),
        config.routing,
        layer=layer,
        activation="gelu_tanh",
        logits=logits,
    )
    return plan.add(h, plan.rms_norm(mixed, f"{prefix}post_ffw_norm_2.weight", eps=eps))

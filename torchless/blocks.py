"""Wiring that model families share: attention, the gated MLP, and the numbers of rotary embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torchless.config import ConfigReader, ModelConfig
from torchless.errors import FormatError, UnsupportedError
from torchless.plan import Activation, Plan, RopeSpec, Routing, Value

__all__ = [
    "attention",
    "gated_mlp",
    "gated_shared_mlp",
    "llama3_frequencies",
    "plain_mlp",
    "read_rope",
    "rope_spec",
    "routed_mlp",
    "shared_mlp",
]


def attention(
    plan: Plan,
    x: Value,
    config: ModelConfig,
    *,
    layer: int,
    normed: Literal["heads", "rows"] | None = None,
    rope: RopeSpec | None = None,
    rotates: bool = True,
    window: int | None = None,
    causal: bool = True,
) -> Value:
    """Grouped-query self-attention of one layer: projections, rotary positions, attention, output projection.

    Queries, keys and values may be one tensor (``attn_qkv``); biases are used where the model has them
    (``attn_q.bias`` and so on).

    Args:
        normed: whether queries and keys are normalised, each head by itself or all heads of a token together.
        rope: of this layer, where it is not `config.rope`.
        rotates: False for a layer without positions.
        window: of this layer, where `config.window` is not that of all.
        causal: False where tokens see those behind them.
    """
    prefix = f"blk.{layer}.attn_"
    q, k, v = _queries_keys_values(plan, x, config, prefix)
    if normed is not None:
        q_heads, k_heads = (config.num_heads, config.num_kv_heads) if normed == "heads" else (1, 1)
        q = plan.rms_norm(q, f"{prefix}q_norm.weight", eps=config.norm_eps, num_heads=q_heads)
        k = plan.rms_norm(k, f"{prefix}k_norm.weight", eps=config.norm_eps, num_heads=k_heads)
    if rotates:
        spec = rope or config.rope
        q_spec = rope or config.query_rope or config.rope
        q = plan.rope(q, num_heads=config.num_heads, head_dim=config.head_dim, spec=q_spec)
        k = plan.rope(k, num_heads=config.num_kv_heads, head_dim=config.head_dim, spec=spec)
    mixed = plan.attention(
        q,
        k,
        v,
        layer=layer,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        scale=config.attention_scale or 1.0 / math.sqrt(config.head_dim),
        window=window or config.window_of(layer),
        softcap=config.attention_softcap,
        causal=causal,
    )
    return _linear(plan, mixed, prefix + "output")


def _queries_keys_values(
    plan: Plan, x: Value, config: ModelConfig, prefix: str
) -> tuple[Value, Value, Value]:
    """The three projections, which may be rows of one tensor."""
    if f"{prefix}qkv.weight" not in plan.shapes:
        return _linear(plan, x, prefix + "q"), _linear(plan, x, prefix + "k"), _linear(plan, x, prefix + "v")
    widths = [
        heads * config.head_dim for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    ]
    ends = [sum(widths[: i + 1]) for i in range(3)]
    bounds = zip([0, *ends[:2]], ends, strict=True)
    q, k, v = (_linear(plan, x, prefix + "qkv", rows=rows) for rows in bounds)
    return q, k, v


def gated_mlp(plan: Plan, x: Value, *, layer: int, activation: Activation) -> Value:
    """down(activation(gate(x)) * up(x)). Shazeer 2020, "GLU variants improve transformer"."""
    return _gated(plan, x, f"blk.{layer}.ffn_", "", activation)


def plain_mlp(
    plan: Plan,
    x: Value,
    *,
    layer: int,
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"],
) -> Value:
    """down(activation(up(x))), without a gate. Vaswani et al. 2017."""
    up = _linear(plan, x, f"blk.{layer}.ffn_up")
    return _linear(plan, plan.activate(up, activation), f"blk.{layer}.ffn_down")


def shared_mlp(plan: Plan, x: Value, *, layer: int, activation: Activation) -> Value:
    """The expert that all tokens share, a gated MLP."""
    return _gated(plan, x, f"blk.{layer}.ffn_", "_shexp", activation)


def gated_shared_mlp(plan: Plan, x: Value, *, layer: int, activation: Activation) -> Value:
    """The same, which a gate of its own weighs for each token. Qwen1.5-MoE."""
    shared = shared_mlp(plan, x, layer=layer, activation=activation)
    return plan.gate_rows(shared, plan.linear(x, f"blk.{layer}.ffn_gate_inp_shexp.weight"))


def _gated(plan: Plan, x: Value, prefix: str, suffix: str, activation: Activation) -> Value:
    """The rows of gate may stand before those of up in one tensor."""
    if f"{prefix}gate{suffix}.weight" in plan.shapes:
        gate, up = _linear(plan, x, f"{prefix}gate{suffix}"), _linear(plan, x, f"{prefix}up{suffix}")
    else:
        num_rows = plan.shapes.get(f"{prefix}up{suffix}.weight", (0,))[0]
        halves = ((0, num_rows // 2), (num_rows // 2, num_rows))
        gate, up = (_linear(plan, x, f"{prefix}up{suffix}", rows=rows) for rows in halves)
    return _linear(plan, plan.glu(gate, up, activation=activation), f"{prefix}down{suffix}")


def routed_mlp(
    plan: Plan,
    x: Value,
    routing: Routing,
    *,
    layer: int,
    activation: Activation,
    logits: Value | None = None,
) -> Value:
    """The experts that a router chooses for each token, mixed; see `plan.Experts`.

    Gate and up may be one tensor (``ffn_gate_up_exps``); biases and experts' scales are used where the model has them.
    `logits` are the router's, where it does not simply read x.
    """
    prefix = f"blk.{layer}.ffn_"
    logits = _linear(plan, x, prefix + "gate_inp") if logits is None else logits

    def found(name: str) -> str | None:
        return name if name in plan.shapes else None

    is_fused = f"{prefix}gate_up_exps.weight" in plan.shapes
    gate = prefix + ("gate_up_exps" if is_fused else "gate_exps")
    return plan.experts(
        x,
        logits,
        routing,
        activation=activation,
        gate=f"{gate}.weight",
        up=None if is_fused else f"{prefix}up_exps.weight",
        down=f"{prefix}down_exps.weight",
        gate_bias=found(f"{gate}.bias"),
        up_bias=None if is_fused else found(f"{prefix}up_exps.bias"),
        down_bias=found(f"{prefix}down_exps.bias"),
        selection_bias=found(f"blk.{layer}.exp_probs_b.bias"),
        expert_scale=found(f"{prefix}down_exps.scale"),
    )


def _linear(plan: Plan, x: Value, name: str, rows: tuple[int, int] | None = None) -> Value:
    bias = f"{name}.bias"
    return plan.linear(x, f"{name}.weight", bias=bias if bias in plan.shapes else None, rows=rows)


def read_rope(
    reader: ConfigReader,
    *,
    rotated: int,
    context_length: int,
    frequency_factors: Sequence[float] | None = None,
    yarn_truncates: bool = True,
) -> RopeSpec:
    """The rotary embedding that a model's settings describe; `rotated` elements of a head turn.

    `yarn_truncates`: whether the ends of YaRN's ramp are whole pairs, where the model does not say.

    Scaling types none, linear, yarn and llama3. Raises UnsupportedError naming any other.
    """
    theta = reader.number("rope.freq_base", 10000.0)
    linear = reader.number("rope.scale_linear", 1.0)  # an older key for linear scaling
    kind = reader.text("rope.scaling.type", "linear" if linear != 1.0 else "none")
    factor = reader.number("rope.scaling.factor", linear)
    original = reader.integer("rope.scaling.original_context_length", context_length)
    reader.expect("rope.scaling.finetuned", True, False)
    reader.expect("rope.scaling.yarn_ext_factor", -1.0, 1.0)
    low_factor, high_factor = (
        reader.number(f"rope.scaling.{k}_freq_factor", d) for k, d in (("low", 1.0), ("high", 4.0))
    )
    fast, slow = (reader.number(f"rope.scaling.yarn_beta_{k}", d) for k, d in (("fast", 32.0), ("slow", 1.0)))
    magnitude_factor = reader.number("rope.scaling.attn_factor", 1.0) * reader.number(
        "rope.scaling.yarn_attn_factor", 1.0
    )
    magnitude = reader.number("rope.scaling.attention_factor", 0.0)  # 0: YaRN's own rule
    truncates = reader.flag("rope.scaling.yarn_truncate", yarn_truncates)
    if kind not in ("none", "linear", "yarn", "llama3"):
        raise UnsupportedError(
            f"{reader.source.path}: rope scaling type {kind!r} is not supported; "
            f"torchless knows none, linear, yarn, llama3"
        )
    if theta <= 0 or factor <= 0 or rotated < 2 or rotated % 2:
        raise FormatError(
            f"{reader.source.path}: rope base {theta:g}, factor {factor:g}, {rotated} rotated elements"
        )
    layout = reader.source.rope_layout
    if kind == "llama3":
        return rope_spec(
            rotated,
            theta,
            layout,
            llama3_frequencies(rotated, theta, factor, low_factor, high_factor, original),
            frequency_factors,
        )
    if kind == "yarn":
        scaled = _yarn(rotated, theta, factor, fast, slow, original, truncates)
        magnitude = (magnitude or 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0) * magnitude_factor
        return rope_spec(rotated, theta, layout, scaled, frequency_factors, magnitude)
    plain = [f / (factor if kind == "linear" else 1.0) for f in _plain(rotated, theta)]
    return rope_spec(rotated, theta, layout, plain, frequency_factors)


def rope_spec(
    rotated: int,
    theta: float,
    layout: Literal["interleaved", "half"],
    inv_freq: Sequence[float] | None = None,
    frequency_factors: Sequence[float] | None = None,
    magnitude: float = 1.0,
) -> RopeSpec:
    """A rope of `rotated` elements with base `theta` (Su et al. 2021), or with given frequencies.

    `frequency_factors` divide the frequencies (GGUF's ``rope_freqs.weight``).
    """
    frequencies = list(inv_freq) if inv_freq is not None else _plain(rotated, theta)
    if frequency_factors is not None:
        if len(frequency_factors) != len(frequencies):
            raise FormatError(
                f"rope_freqs.weight has {len(frequency_factors)} factors for {len(frequencies)} rotary pairs"
            )
        frequencies = [f / factor for f, factor in zip(frequencies, frequency_factors, strict=True)]
    return RopeSpec(layout, tuple(frequencies), magnitude)


def _plain(rotated: int, theta: float) -> list[float]:
    """theta^(-2j/rotated): radians per position of pair j."""
    return [theta ** (-2.0 * j / rotated) for j in range(rotated // 2)]


def _yarn(
    rotated: int, theta: float, factor: float, fast: float, slow: float, original: int, truncates: bool
) -> list[float]:
    """Frequencies by parts: fast pairs stay, slow ones are divided by `factor` (Peng et al. 2023, YaRN, 3.2)."""

    def pair_with(rotations: float) -> float:
        """The (fractional) pair that makes this many rotations over the original context."""
        return rotated * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_with(fast), pair_with(slow)
    low = max(math.floor(first) if truncates else first, 0)
    high = min(math.ceil(last) if truncates else last, rotated - 1)
    frequencies = []
    for j, f in enumerate(_plain(rotated, theta)):
        slowness = min(max((j - low) / max(high - low, 0.001), 0.0), 1.0)
        frequencies.append(f / factor * slowness + f * (1.0 - slowness))
    return frequencies


def llama3_frequencies(
    rotated: int, theta: float, factor: float, low_factor: float, high_factor: float, original: int
) -> list[float]:
    """Llama 3.1's rule: by wavelength against the original context, with a linear ramp between."""
    frequencies = []
    for f in _plain(rotated, theta):
        wavelength = 2 * math.pi / f
        if wavelength < original / high_factor:
            frequencies.append(f)
        elif wavelength > original / low_factor:
            frequencies.append(f / factor)
        else:
            smooth = (original / wavelength - low_factor) / (high_factor - low_factor)
            frequencies.append((1 - smooth) * f / factor + smooth * f)
    return frequencies

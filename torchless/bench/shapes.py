"""Shapes of well-known models, one entry each, and the tensors that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from torchless.errors import InvalidRequestError

__all__ = ["SHAPES", "DeltaNetShape", "Llama3Rope", "ModelShape", "find_shape", "tensor_shapes"]


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Llama 3.1's rope scaling: which wavelengths are stretched, and by how much.

    Attributes:
        factor: stretch of the slow pairs.
        low_frequency_factor: pairs with a wavelength above ``original_context / this`` are stretched fully.
        high_frequency_factor: pairs with a wavelength below ``original_context / this`` stay as they are.
        original_context: context length of pre-training, in tokens.
    """

    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class DeltaNetShape:
    """The layers of a hybrid that are no attention: all but every `interval`-th.

    Attributes:
        key_heads, key_dim: heads of queries and keys, and their width.
        value_heads, value_dim: heads of values, and their width.
        taps: tokens that the convolution before them looks at.
    """

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    interval: int = 4
    taps: int = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides the speed and memory of a model, and nothing that it learned.

    Attributes:
        architecture: GGUF's name of the family.
        window: keys that a token sees in layers with a sliding window; 0 without one.
        logit_softcaps: Gemma 2's limits of attention scores and of the logits.
        experts: of each layer, how many of them a token takes, and the width inside one; None without experts.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_width: int
    vocab_size: int
    context_length: int
    rope_theta: float
    norm_eps: float = 1e-5
    tied: bool = False
    rope_scaling: Llama3Rope | None = None
    architecture: str = "llama"
    window: int = 0
    logit_softcaps: tuple[float, float] | None = None
    experts: tuple[int, int, int] | None = None
    delta_net: DeltaNetShape | None = None


SHAPES: dict[str, ModelShape] = {
    "test": ModelShape(2, 256, 4, 2, 64, 512, 512, 2048, 10000.0, tied=True),
    "test-moe": ModelShape(2, 256, 4, 2, 64, 512, 512, 2048, 10000.0, tied=True, experts=(8, 2, 256)),
    "test-hybrid": ModelShape(
        *(4, 256, 4, 2, 64, 512, 512, 2048, 10000.0),
        tied=True,
        architecture="qwen3next",
        experts=(8, 2, 256),
        delta_net=DeltaNetShape(2, 64, 4, 64),
    ),
    "tinyllama-1.1b": ModelShape(22, 2048, 32, 4, 64, 5632, 32000, 2048, 10000.0),
    "llama-3.2-1b": ModelShape(
        16, 2048, 32, 8, 64, 8192, 128256, 131072, 500000.0, tied=True, rope_scaling=Llama3Rope(32.0)
    ),
    "llama-3.2-3b": ModelShape(
        28, 3072, 24, 8, 128, 8192, 128256, 131072, 500000.0, tied=True, rope_scaling=Llama3Rope(32.0)
    ),
    "llama-3.1-8b": ModelShape(
        32, 4096, 32, 8, 128, 14336, 128256, 131072, 500000.0, rope_scaling=Llama3Rope(8.0)
    ),
    "mistral-7b": ModelShape(32, 4096, 32, 8, 128, 14336, 32000, 32768, 1000000.0),
    "qwen2.5-0.5b": ModelShape(
        24, 896, 14, 2, 64, 4864, 151936, 32768, 1000000.0, 1e-6, tied=True, architecture="qwen2"
    ),
    "qwen3-0.6b": ModelShape(
        28, 1024, 16, 8, 128, 3072, 151936, 40960, 1000000.0, 1e-6, tied=True, architecture="qwen3"
    ),
    "qwen3-30b-a3b": ModelShape(
        *(48, 2048, 32, 4, 128, 6144, 151936, 40960, 1000000.0, 1e-6),
        architecture="qwen3moe",
        experts=(128, 8, 768),
    ),
    "qwen3-30b-a3b-6l": ModelShape(
        *(6, 2048, 32, 4, 128, 6144, 151936, 40960, 1000000.0, 1e-6),
        architecture="qwen3moe",
        experts=(128, 8, 768),
    ),
    "qwen3-next-80b-a3b-4l": ModelShape(
        *(4, 2048, 16, 2, 256, 5120, 151936, 262144, 10000000.0, 1e-6),
        architecture="qwen3next",
        experts=(512, 10, 512),
        delta_net=DeltaNetShape(16, 128, 32, 128),
    ),
    "qwen3.5-9b-8l": ModelShape(
        *(8, 4096, 16, 4, 256, 12288, 248320, 262144, 10000000.0, 1e-6),
        architecture="qwen35",
        delta_net=DeltaNetShape(16, 128, 32, 128),
    ),
    "phi-3-mini": ModelShape(
        32, 3072, 32, 32, 96, 8192, 32064, 4096, 10000.0, architecture="phi3", window=2047
    ),
    "gemma-2-2b": ModelShape(
        *(26, 2304, 8, 4, 256, 9216, 256000, 8192, 10000.0, 1e-6),
        tied=True,
        architecture="gemma2",
        window=4096,
        logit_softcaps=(50.0, 30.0),
    ),
}
"""By name. Positional order: layers, width, heads, key/value heads, head size, feed-forward width,
vocabulary, context length, rope theta. Figures are those of the models' published configurations; ``-6l`` has their
first six layers only, and so on."""


def find_shape(name: str) -> ModelShape:
    """The shape called `name`.

    Raises:
        InvalidRequestError: there is none; the message lists those that exist.
    """
    shape = SHAPES.get(name)
    if shape is None:
        raise InvalidRequestError(f"unknown model shape {name!r}; known shapes: {', '.join(SHAPES)}")
    return shape


def tensor_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name -> shape (rows first) of every tensor of the model, in the order in which files hold them."""
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab_size, shape.width)}
    if shape.rope_scaling is not None:
        tensors["rope_freqs.weight"] = (shape.head_dim // 2,)
    for layer in range(shape.num_layers):
        tensors.update({f"blk.{layer}.{name}": dims for name, dims in _layer(shape, layer).items()})
    tensors["output_norm.weight"] = (shape.width,)
    if not shape.tied:
        tensors["output.weight"] = (shape.vocab_size, shape.width)
    return tensors


def _layer(shape: ModelShape, number: int) -> dict[str, tuple[int, ...]]:
    """Tensors of one layer, in file order, as the family has them."""
    width, ffn, family = shape.width, shape.ffn_width, shape.architecture
    heads_width, kv_width = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (width,)}
    if shape.experts is not None:
        count, _, inner = shape.experts
        layer |= {
            "ffn_down_exps.weight": (count, width, inner),
            "ffn_gate_exps.weight": (count, inner, width),
            "ffn_gate_inp.weight": (count, width),
            "ffn_up_exps.weight": (count, inner, width),
        }
        if shape.delta_net is not None:  # and one that all tokens share
            layer |= {
                "ffn_down_shexp.weight": (width, inner),
                "ffn_gate_inp_shexp.weight": (width,),
                "ffn_gate_shexp.weight": (inner, width),
                "ffn_up_shexp.weight": (inner, width),
            }
    elif family == "phi3":  # gate and up are one matrix, and so are q, k and v
        layer |= {"ffn_down.weight": (width, ffn), "ffn_up.weight": (2 * ffn, width)}
    else:
        layer |= {
            "ffn_down.weight": (width, ffn),
            "ffn_gate.weight": (ffn, width),
            "ffn_up.weight": (ffn, width),
        }
    layer["ffn_norm.weight" if shape.delta_net is None else "post_attention_norm.weight"] = (width,)
    if shape.delta_net is not None and (number + 1) % shape.delta_net.interval:
        return layer | _delta_net(shape, shape.delta_net)
    if family == "gemma2":
        layer |= {"post_attention_norm.weight": (width,), "post_ffw_norm.weight": (width,)}
    if family in ("qwen3", "qwen3moe") or shape.delta_net is not None:
        layer |= {"attn_k_norm.weight": (shape.head_dim,), "attn_q_norm.weight": (shape.head_dim,)}
    if family == "phi3":
        return layer | {
            "attn_output.weight": (width, heads_width),
            "attn_qkv.weight": (heads_width + 2 * kv_width, width),
        }
    biases = family == "qwen2"
    for name, rows, columns, has_bias in (
        ("attn_k", kv_width, width, biases),
        ("attn_output", width, heads_width, False),
        ("attn_q", heads_width if shape.delta_net is None else 2 * heads_width, width, biases),
        ("attn_v", kv_width, width, biases),
    ):
        layer |= {f"{name}.bias": (rows,)} if has_bias else {}
        layer[f"{name}.weight"] = (rows, columns)
    return layer


def _delta_net(shape: ModelShape, net: DeltaNetShape) -> dict[str, tuple[int, ...]]:
    inner = net.value_heads * net.value_dim
    channels = 2 * net.key_heads * net.key_dim + inner
    numbers = {"ssm_ba.weight": (2 * net.value_heads, shape.width)}
    if shape.architecture != "qwen3next":
        numbers = {f"ssm_{name}.weight": (net.value_heads, shape.width) for name in ("alpha", "beta")}
    return {
        "attn_gate.weight": (inner, shape.width),
        "attn_qkv.weight": (channels, shape.width),
        "ssm_a": (net.value_heads,),
        **numbers,
        "ssm_conv1d.weight": (channels, net.taps),
        "ssm_dt.bias": (net.value_heads,),
        "ssm_norm.weight": (net.value_dim,),
        "ssm_out.weight": (shape.width, inner),
    }

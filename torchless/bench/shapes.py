"""Shapes of well-known models, one entry each, and the tensors that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from torchless.errors import InvalidRequestError

__all__ = ["SHAPES", "Llama3Rope", "ModelShape", "find_shape", "tensor_shapes"]


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
class ModelShape:
    """What decides the speed and memory of a llama-family model, and nothing that it learned."""

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


SHAPES: dict[str, ModelShape] = {
    "test": ModelShape(2, 256, 4, 2, 64, 512, 512, 2048, 10000.0, tied=True),
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
}
"""By name. Positional order: layers, width, heads, key/value heads, head size, feed-forward width,
vocabulary, context length, rope theta. Figures are those of the models' published configurations."""


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
    width, heads_width = shape.width, shape.num_heads * shape.head_dim
    kv_width = shape.num_kv_heads * shape.head_dim
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab_size, width)}
    if shape.rope_scaling is not None:
        tensors["rope_freqs.weight"] = (shape.head_dim // 2,)
    for layer in range(shape.num_layers):
        block = {
            "attn_norm": (width,),
            "ffn_down": (width, shape.ffn_width),
            "ffn_gate": (shape.ffn_width, width),
            "ffn_up": (shape.ffn_width, width),
            "ffn_norm": (width,),
            "attn_k": (kv_width, width),
            "attn_output": (width, heads_width),
            "attn_q": (heads_width, width),
            "attn_v": (kv_width, width),
        }
        tensors.update({f"blk.{layer}.{name}.weight": dims for name, dims in block.items()})
    tensors["output_norm.weight"] = (width,)
    if not shape.tied:
        tensors["output.weight"] = (shape.vocab_size, width)
    return tensors

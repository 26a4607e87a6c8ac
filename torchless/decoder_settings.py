"""Settings that most families of decoders share."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torchless.blocks import read_rope
from torchless.config import ConfigReader, ModelConfig
from torchless.long_rope import read_long_rope
from torchless.plan import Routing

__all__ = ["expect_layers_alike", "read_settings"]


def expect_layers_alike(reader: ConfigReader) -> None:
    """Refuses models in which some layers have a window and others none."""
    kind = "sliding_attention" if reader.has("attention.sliding_window") else "full_attention"
    reader.expect("hf.layer_types", [kind] * reader.integer("block_count"))
    windowed = reader.has("attention.sliding_window")
    reader.expect(
        "hf.max_window_layers", *(() if windowed else [reader.metadata.get("hf.max_window_layers")])
    )


def read_settings(
    reader: ConfigReader,
    *,
    routing: Routing | None = None,
    layout: Literal["interleaved", "half"] | None,
    yarn_truncates: bool = True,
    activations: tuple[str, ...] = ("silu",),
    norm: Literal["layer_norm", "layer_norm_rms"] = "layer_norm_rms",
) -> ModelConfig:
    """The settings of a pre-norm transformer with gated MLPs.

    Args:
        activations: names of the MLP's activation that are allowed.
        norm: the setting of epsilon.
        layout: of rotary pairs, where both file formats have the same; None: as the file format has it.
    """
    reader.expect("hidden_act", *activations)
    reader.expect("hf.attention_bias", False, True)  # the biases themselves are tensors
    num_heads, width = reader.integer("attention.head_count"), reader.integer("embedding_length")
    head_dim = reader.integer("attention.key_length", width // num_heads)
    reader.expect("attention.value_length", head_dim)
    context_length = reader.integer("context_length")
    tensors = reader.source.tensors
    tied = "output.weight" not in tensors
    reader.expect("tie_word_embeddings", tied, True)  # a stored output.weight is used even if it is a copy
    vocab_size = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
    reader.expect("vocab_size", vocab_size)
    rotated = reader.integer("rope.dimension_count", head_dim)
    found_layout = layout or reader.source.rope_layout
    rope = read_long_rope(
        reader, rotated=rotated, context_length=context_length, layout=found_layout
    ) or read_rope(
        reader,
        rotated=rotated,
        context_length=context_length,
        frequency_factors=reader.float_tensor("rope_freqs.weight"),
        yarn_truncates=yarn_truncates,
    )
    return ModelConfig(
        architecture=reader.architecture,
        name=reader.text("general.name", ""),
        context_length=context_length,
        vocab_size=vocab_size,
        num_layers=reader.integer("block_count"),
        embedding_length=width,
        feed_forward_length=reader.integer("feed_forward_length", width),
        num_heads=num_heads,
        num_kv_heads=reader.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        norm_eps=reader.number(f"attention.{norm}_epsilon", 1e-5),
        rope=replace(rope, layout=found_layout),
        window=reader.integer("attention.sliding_window") if reader.has("attention.sliding_window") else None,
        tied=tied,
        routing=routing,
    )

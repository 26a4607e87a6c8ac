"""Synthetic models: GGUF files with a real model's shapes and random weights, to measure speed and memory.

What decides the speed of inference is shapes, formats and file layout, all of which are real here. The text
that such a model writes is noise. The file opens in every engine that reads GGUF.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.bench.recipes import find_recipe, shape_facts
from torchless.bench.shapes import Llama3Rope, ModelShape, find_shape, tensor_shapes
from torchless.errors import InvalidRequestError
from torchless.quantization.recipes import Recipe, may_quantize, tensor_type

__all__ = ["synthetic_metadata", "synthetic_tensors", "write_synthetic"]

_SPECIAL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>")
_MERGES = (("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("an", "d"), ("e", "r"), ("o", "n"), ("Ġ", "the"))


def write_synthetic(
    path: str | Path, shape: str, recipe: str, *, seed: int = 0, layers: int | None = None
) -> None:
    """Writes a GGUF file with the shapes of the model `shape` and random weights stored by `recipe`.

    Decoded weights have mean 0 and a standard deviation of about 1/sqrt(row length), so activations and
    logits keep an ordinary size through all layers. The same arguments write the same bytes. Memory stays
    at some megabytes whatever the size of the file.

    Args:
        path: the file to write; an existing one is replaced.
        shape: a name in `shapes.SHAPES`, such as ``"llama-3.2-1b"``.
        recipe: a name in `recipes.RECIPES`, such as ``"Q4_K_M"``.
        seed: changes all weights.
        layers: writes only this many layers.

    Raises:
        InvalidRequestError: unknown shape or recipe, or no layers.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, os
        >>> file = os.path.join(tempfile.mkdtemp(), "test.gguf")
        >>> write_synthetic(file, "test", "Q4_K_M")
        >>> os.path.getsize(file) < 2_000_000
        True
    """
    from torchless.weights.gguf_writer import write_gguf

    model, chosen = _with_layers(find_shape(shape), layers), find_recipe(recipe)
    # Without hyphens: llama.cpp looks for the real tokens of "phi-3" in the vocabulary of a model of that name.
    name = f"synthetic {shape.replace('-', ' ')} {recipe.upper()}"
    write_gguf(path, synthetic_metadata(model, chosen, name), synthetic_tensors(model, chosen, seed))


def synthetic_tensors(
    shape: ModelShape, recipe: Recipe, seed: int
) -> Iterator[tuple[str, tuple[int, ...], str, Iterator[npt.NDArray[np.uint8]]]]:
    """Yields (name, shape with rows first, type, chunks of stored bytes) of each tensor in file order."""
    facts = shape_facts(shape)
    for name, dims in tensor_shapes(shape).items():
        block_type = tensor_type(recipe, name, dims, facts) if may_quantize(name, dims) else "F32"
        if name == "rope_freqs.weight":
            assert shape.rope_scaling is not None
            chunks = iter([_frequency_factors(shape, shape.rope_scaling).view(np.uint8)])
        elif len(dims) == 1:
            values = _norm_weights(dims[0], [seed, zlib.crc32(name.encode())])
            if name.endswith("ssm_a"):  # a state that forgets within a hundred tokens
                values = values / np.float32(-64)
            chunks = iter([(values - np.float32(name.endswith(".bias"))).view(np.uint8)])
        else:
            std = 1 / math.sqrt(dims[-1])
            seeds = [seed, zlib.crc32(name.encode())]
            chunks = random_blocks(BLOCK_TYPES[block_type], math.prod(dims), std, seeds)
        yield name, dims, block_type, chunks


def synthetic_metadata(shape: ModelShape, recipe: Recipe, name: str) -> dict[str, Any]:
    """The GGUF metadata of such a model, with a byte-level BPE vocabulary of the right size."""
    tokens, token_types = _vocabulary(shape.vocab_size)
    first_special = len(tokens) - len(_SPECIAL_TOKENS)
    family = shape.architecture
    return {
        "general.architecture": family,
        "general.name": name,
        "general.file_type": np.uint32(recipe.file_type),
        f"{family}.block_count": np.uint32(shape.num_layers),
        f"{family}.context_length": np.uint32(shape.context_length),
        f"{family}.embedding_length": np.uint32(shape.width),
        f"{family}.feed_forward_length": np.uint32(shape.ffn_width),
        f"{family}.attention.head_count": np.uint32(shape.num_heads),
        f"{family}.attention.head_count_kv": np.uint32(shape.num_kv_heads),
        f"{family}.attention.key_length": np.uint32(shape.head_dim),
        f"{family}.attention.value_length": np.uint32(shape.head_dim),
        f"{family}.attention.layer_norm_rms_epsilon": np.float32(shape.norm_eps),
        f"{family}.rope.dimension_count": np.uint32(shape.head_dim),
        f"{family}.rope.freq_base": np.float32(shape.rope_theta),
        f"{family}.vocab_size": np.uint32(shape.vocab_size),
        **_family_metadata(shape),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(token_types, np.int32),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in _MERGES],
        "tokenizer.ggml.bos_token_id": np.uint32(first_special),
        "tokenizer.ggml.eos_token_id": np.uint32(first_special + 1),
        "tokenizer.ggml.add_bos_token": True,
    }


def _family_metadata(shape: ModelShape) -> dict[str, Any]:
    """What only some families have."""
    family, found = shape.architecture, dict[str, Any]()
    if shape.window:
        found[f"{family}.attention.sliding_window"] = np.uint32(shape.window)
    if shape.logit_softcaps is not None:
        scores, logits = shape.logit_softcaps
        found[f"{family}.attn_logit_softcapping"] = np.float32(scores)
        found[f"{family}.final_logit_softcapping"] = np.float32(logits)
    if shape.delta_net is not None:
        net = shape.delta_net
        found |= {
            f"{family}.full_attention_interval": np.uint32(net.interval),
            f"{family}.rope.dimension_count": np.uint32(shape.head_dim // 4),
            f"{family}.ssm.conv_kernel": np.uint32(net.taps),
            f"{family}.ssm.group_count": np.uint32(net.key_heads),
            f"{family}.ssm.inner_size": np.uint32(net.value_heads * net.value_dim),
            f"{family}.ssm.state_size": np.uint32(net.key_dim),
            f"{family}.ssm.time_step_rank": np.uint32(net.value_heads),
        }
        if family == "qwen35":
            found[f"{family}.rope.dimension_sections"] = np.array([11, 11, 10, 0], np.int32)
    if shape.experts is not None:
        count, used, inner = shape.experts
        found[f"{family}.expert_count"] = np.uint32(count)
        found[f"{family}.expert_used_count"] = np.uint32(used)
        found[f"{family}.expert_feed_forward_length"] = np.uint32(inner)
    return found


def _with_layers(shape: ModelShape, layers: int | None) -> ModelShape:
    if layers is None:
        return shape
    if layers < 1:
        raise InvalidRequestError(f"a model needs at least one layer, got layers={layers}")
    return replace(shape, num_layers=layers)


def _vocabulary(size: int) -> tuple[list[str], list[int]]:
    """`size` tokens (bytes, merges, filler, special ones) and their GGUF types (1 normal, 3 control)."""
    tokens = [*_byte_tokens(), *("".join(pair) for pair in _MERGES)]
    num_filler = size - len(tokens) - len(_SPECIAL_TOKENS)
    if num_filler < 0:
        raise InvalidRequestError(f"a vocabulary of {size} cannot hold the {size - num_filler} basic tokens")
    tokens += [f"Ġw{i}" for i in range(num_filler)]
    types = [1] * len(tokens) + [3] * len(_SPECIAL_TOKENS)
    return [*tokens, *_SPECIAL_TOKENS], types


def _byte_tokens() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes: itself, or the next free one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _norm_weights(size: int, seed: list[int]) -> npt.NDArray[np.float32]:
    """Around 1: 0.75 to 1.25."""
    raw = np.random.SFC64(np.random.SeedSequence(seed)).random_raw(size)
    weights: npt.NDArray[np.float32] = (0.75 + (raw >> np.uint64(48)) / 131072).astype("<f4")
    return weights


def _frequency_factors(shape: ModelShape, scaling: Llama3Rope) -> npt.NDArray[np.float32]:
    """Divisor of each rotary pair's frequency by Llama 3.1's rule: 1 for fast pairs, `factor` for slow."""
    pairs = np.arange(shape.head_dim // 2, dtype=np.float64)
    wavelengths = 2 * math.pi * shape.rope_theta ** (2 * pairs / shape.head_dim)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    smooth = np.clip((scaling.original_context / wavelengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling.factor + smooth)).astype("<f4")


def main(arguments: list[str]) -> int:
    """``python -m torchless.bench.synthetic SHAPE:RECIPE OUT``; returns the exit status."""
    if len(arguments) != 2 or ":" not in arguments[0]:
        print("usage: python -m torchless.bench.synthetic SHAPE:RECIPE OUT", file=sys.stderr)
        print("example: python -m torchless.bench.synthetic llama-3.2-1b:Q4_K_M model.gguf", file=sys.stderr)
        return 2
    shape, recipe = arguments[0].split(":", 1)
    try:
        write_synthetic(arguments[1], shape, recipe)
    except (InvalidRequestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

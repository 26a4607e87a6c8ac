"""Gemma's folders in the words of GGUF files: settings that have defaults or other names, norms around zero.

Folders hold what a norm multiplies with less one, and name the norms before and behind a block in their own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from torchless.weights.recurrent_parts import mapped_vector
from torchless.weights.stored_weights import StoredWeight

__all__ = ["convert_norms", "gemma_settings"]

_TYPES = ("gemma", "gemma2", "gemma3", "gemma3_text")
_NAMES = {"ffn_norm": "post_attention_norm", "pre_ffw_norm": "ffn_norm"}
"""What the tables of names make of the norms behind attention and before the MLP, from Gemma 2 on."""

_GEMMA3_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "query_pre_attn_scalar": 256,
}
"""What published folders leave to the library."""


def gemma_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a Gemma model with flat rotary parameters and a factor on scores; others' as they are.

    >>> gemma_settings({"model_type": "gemma2", "query_pre_attn_scalar": 256})
    {'model_type': 'gemma2', 'tie_word_embeddings': True, 'attention_multiplier': 0.0625}
    """
    if config.get("model_type") not in _TYPES:
        return config
    found = {**config, "tie_word_embeddings": config.get("tie_word_embeddings", True)}
    if config["model_type"] in ("gemma3", "gemma3_text"):
        found = {**_GEMMA3_DEFAULTS, **found}
        kinds = found.get("rope_parameters")
        if isinstance(kinds, dict) and isinstance(kinds.get("full_attention"), dict):
            found["rope_parameters"] = kinds["full_attention"]
            local = kinds.get("sliding_attention")
            if isinstance(local, dict) and local.get("rope_type", "default") == "default":
                found["rope_local_base_freq"] = local.get("rope_theta", 1e4)
            elif local is not None:
                found["rope_parameters.sliding_attention"] = local  # nobody reads it: refused by name
    scalar = found.get("query_pre_attn_scalar")
    if isinstance(scalar, int | float) and not isinstance(scalar, bool) and scalar > 0:
        del found["query_pre_attn_scalar"]
        found["attention_multiplier"] = scalar**-0.5
    return found


def convert_norms(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights; Gemma's norms as what they multiply with, under GGUF's names.

    Raises:
        FormatError: a norm is no vector.
    """
    architecture = str(metadata["general.architecture"])
    if architecture not in ("gemma", "gemma2", "gemma3"):
        yield from weights
        return
    for weight in weights:
        name = weight.info.name
        if name.endswith("norm.weight"):
            pieces = name.split(".")
            if architecture != "gemma" and len(pieces) == 4:
                pieces[2] = _NAMES.get(pieces[2], pieces[2])
            weight = mapped_vector(weight, lambda norm: norm + np.float32(1), name=".".join(pieces))
        yield weight

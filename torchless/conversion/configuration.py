"""A model's settings from config.json to GGUF metadata and back.

A GGUF file that torchless makes keeps the two configuration files as JSON under ``torchless.hf.config`` and
``torchless.hf.generation_config``, so that the way back gives them unchanged. GGUF's own keys win where they differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchless.config import ModelConfig
from torchless.conversion.families import Family, find_conversion
from torchless.errors import FormatError, UnsupportedError
from torchless.long_rope import FACTOR_TENSORS
from torchless.quants import Floats
from torchless.weights.hf_config import read_json, settings_of, shortest
from torchless.weights.mistral_parts import window_settings
from torchless.weights.phi_parts import restore_phi
from torchless.weights.safetensors import SafetensorsSource
from torchless.weights.source import WeightSource
from torchless.weights.text_parts import text_settings

__all__ = ["ROPE_FACTORS", "VECTOR_TYPE_KEY", "configuration_files", "gguf_settings", "rope_factors"]

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor in which GGUF files keep what Llama 3.1's rule does to the rotary frequencies."""

VECTOR_TYPE_KEY = "torchless.hf.vector_type"
"""Metadata: the type that the vectors had, which GGUF files hold as F32."""

_CONFIG_KEY, _GENERATION_KEY = "torchless.hf.config", "torchless.hf.generation_config"
_LEFT_OUT = ("_name_or_path", "quantization_config")
_NOT_IN_GGUF = ("hidden_act", "tie_word_embeddings")
"""Settings that GGUF files do not have: the architecture implies the first, the tensors say the second."""

_NEVER = 1e30
"""What GGUF files divide the frequency of a pair by that does not turn."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Settings of Llama 3.1's rule in every model that was published with it; `factor` differs."""


def gguf_settings(source: SafetensorsSource) -> dict[str, Any]:
    """GGUF metadata of a Hugging Face folder, without the tokenizer."""
    architecture = str(source.metadata["general.architecture"])
    named = source.metadata.get("hf._name_or_path")
    folder = source.path if source.path.is_dir() else source.path.parent
    name = Path(named).name if isinstance(named, str) and named.strip("/.") else folder.resolve().name
    found: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
    }
    is_llama3 = source.metadata.get(f"{architecture}.rope.scaling.type") == "llama3"
    for key, value in source.metadata.items():
        if key.startswith((f"{architecture}.", "general.sampling.", "torchless.")):
            found[key] = value
    for key in [*found]:
        if key in (f"{architecture}.{item}" for item in _NOT_IN_GGUF):
            del found[key]
        elif key.startswith(f"{architecture}.rope.scaling.") and (
            is_llama3 or found.get(f"{architecture}.rope.scaling.type") == "none"
        ):
            del found[key]  # a tensor of factors says it; readers would scale a second time
        elif key in (f"{architecture}.rope.scaling.{kind}_factor" for kind in FACTOR_TENSORS):
            del found[key]  # tensors
    vector_types = {info.type for info in source.tensors.values() if len(info.shape) < 2}
    # Norms that are stored otherwise are F32 here whatever they were; the way back finds out.
    if len(vector_types) == 1 and not find_conversion(architecture).centred_norms:
        found[VECTOR_TYPE_KEY] = vector_types.pop()
    found[_CONFIG_KEY] = _kept(source.config_path)
    if source.generation_path is not None:
        found[_GENERATION_KEY] = _kept(source.generation_path)
    return found


def rope_factors(source: SafetensorsSource, config: ModelConfig) -> dict[str, Floats]:
    """Tensors of divisors of the rotary frequencies: Llama 3.1's rule, LongRoPE, Gemma 4's pairs that stay."""
    architecture = source.metadata["general.architecture"]
    found: dict[str, Floats] = {}
    for kind, name in FACTOR_TENSORS.items():
        values = source.metadata.get(f"{architecture}.rope.scaling.{kind}_factor")
        if values is not None:
            found[name] = np.array(values, "<f4")
    if architecture == "gemma4":
        stays = np.array(config.rope.inv_freq) == 0
        return {ROPE_FACTORS: np.where(stays, _NEVER, 1.0).astype("<f4")}
    if source.metadata.get(f"{architecture}.rope.scaling.type") != "llama3":
        return found
    theta = float(source.metadata.get(f"{architecture}.rope.freq_base", 10000.0))
    scaled = np.array(config.rope.inv_freq)
    plain = theta ** (-np.arange(len(scaled)) / len(scaled))
    return {ROPE_FACTORS: (plain / scaled).astype("<f4")}


def configuration_files(
    source: WeightSource, family: Family, config: ModelConfig, float_type: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of config.json and generation_config.json for a GGUF model.

    Raises:
        UnsupportedError: the file changes rotary frequencies by a rule that config.json cannot say.
    """
    metadata = source.metadata
    found, generation = settings_of(metadata, str(metadata["general.architecture"]))
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if key != family.expert_count or config.routing is None:
            found.pop(key, None)
    for key in ("shared_expert_intermediate_size", "shared_intermediate_size"):
        if key != family.shared_width:
            found.pop(key, None)
    found["tie_word_embeddings"] = config.tied
    found["vocab_size"] = config.vocab_size
    stored = _stored(source, _CONFIG_KEY)
    if stored:
        merged = {
            key: value for key, value in found.items() if key in stored and not _same(value, stored[key])
        }
        result = {**stored, **merged}
    else:
        result = _new_settings(source, family, config, found)
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[float_type]
    result["dtype" if "dtype" in stored else "torch_dtype"] = dtype
    return result, _stored(source, _GENERATION_KEY) or generation


def _new_settings(
    source: WeightSource, family: Family, config: ModelConfig, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Contents of config.json for a file that does not hold the original; `found` is what its metadata says."""
    has_window = config.window is not None and family.window_class is not None
    result = {
        "architectures": [family.window_class if has_window else family.hf_class],
        "model_type": family.window_type if has_window else family.model_type,
        "hidden_act": family.activation,
        "attention_bias": "blk.0.attn_q.bias" in source.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in source.tensors,
        "head_dim": config.head_dim,
        "num_key_value_heads": config.num_kv_heads,
        **found,
    }
    rotated = 2 * len(config.rope.inv_freq)
    if rotated != config.head_dim:
        result["partial_rotary_factor"] = rotated / config.head_dim
    if config.windowed is not None:
        result |= window_settings(config.windowed)
    if family.centred_norms:  # Gemma
        result |= {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
        if result.pop("attention_multiplier", None) is not None or config.attention_scale is not None:
            scale = config.attention_scale or 1.0
            result["query_pre_attn_scalar"] = round(scale**-2)
    if FACTOR_TENSORS["long"] in source.tensors:
        result["rope_scaling"] = {**result.get("rope_scaling", {}), **_longrope_settings(source)}
    if ROPE_FACTORS in source.tensors:
        result["rope_scaling"] = _llama3_settings(source, config, float(result.get("rope_theta", 10000.0)))
    return restore_phi(
        result, has_output_bias="output.bias" in source.tensors, magnitude=shortest(config.rope.magnitude)
    )


def _longrope_settings(source: WeightSource) -> dict[str, Any]:
    """The sets of factors that GGUF files hold as tensors, and what they say of magnitudes."""
    found: dict[str, Any] = {"rope_type": "longrope"}
    for kind, name in FACTOR_TENSORS.items():
        if name in source.tensors:
            found[f"{kind}_factor"] = [shortest(value) for value in source.raw(name).view("<f4")]
    architecture = source.metadata["general.architecture"]
    magnitude = source.metadata.get(f"{architecture}.rope.scaling.attn_factor")
    return found if magnitude is None else {**found, "attention_factor": shortest(magnitude)}


def _llama3_settings(source: WeightSource, config: ModelConfig, theta: float) -> dict[str, Any]:
    """Settings of Llama 3.1's rule that give the file's factors."""
    from torchless.blocks import llama3_frequencies

    factors = source.raw(ROPE_FACTORS).view("<f4").astype(np.float64)
    rotated, factor = 2 * len(factors), float(factors.max())
    low, high, original = _LLAMA3.values()
    wanted = llama3_frequencies(rotated, theta, factor, low, high, int(original))
    plain = [theta ** (-2.0 * j / rotated) for j in range(rotated // 2)]
    if all(math.isclose(p / f, w, rel_tol=1e-5) for p, f, w in zip(plain, factors, wanted, strict=True)):
        return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
    raise UnsupportedError(
        f"{source.path}: {ROPE_FACTORS} changes the rotary frequencies, and no settings of config.json that "
        f"torchless knows do the same (tried Llama 3.1's rule); run the GGUF file itself"
    )


def _kept(path: Path) -> str:
    values = text_settings(read_json(path, "configuration"))
    return json.dumps({key: value for key, value in values.items() if key not in _LEFT_OUT})


def _stored(source: WeightSource, key: str) -> dict[str, Any]:
    text = source.metadata.get(key)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FormatError(f"{source.path}: {key}: found {str(text)!r:.60}, expected a JSON object as text")
    return value


def _same(ours: Any, stored: Any) -> bool:
    """Whether a value is the one stored, as far as GGUF can hold it."""
    if isinstance(stored, float) and isinstance(ours, float | int):
        return bool(np.float32(ours) == np.float32(stored))
    if isinstance(ours, Mapping) or (isinstance(stored, Sequence) and not isinstance(stored, str)):
        return True  # rope_scaling and lists of end tokens, which GGUF says in other words
    return bool(ours == stored) or stored is None

"""Translates a Hugging Face config.json (and generation_config.json) into GGUF's metadata keys.

`translate` never drops anything: what has no GGUF key stays under ``hf.<key>``, where a model file can look
for what would change its arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torchless.errors import FormatError, UnsupportedError
from torchless.weights.encoder_parts import encoder_settings
from torchless.weights.gemma3n_parts import gemma3n_settings
from torchless.weights.gemma4_parts import gemma4_settings
from torchless.weights.gemma_parts import gemma_settings
from torchless.weights.hf_keys import (
    ARCHITECTURES,
    MODEL_TYPES,
    ROPE_SETTINGS,
    SAMPLING,
    SETTINGS,
    TOKENS,
)
from torchless.weights.mistral_parts import mistral_settings, restore_mistral
from torchless.weights.phi_parts import phi_settings
from torchless.weights.pooling_parts import POOLING_TYPES, pooling_settings
from torchless.weights.text_parts import text_settings

__all__ = ["QUANTISATION_METHODS", "quantisation_of", "read_json", "settings_of", "shortest", "translate"]

QUANTISATION_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "gptq", "awq", "mxfp4")
"""Values of quant_method whose weights are read (of compressed-tensors and modelopt numbers of one byte, of gptq and
awq 4 bits); see `checkpoints`."""


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file of at most 16 MiB. Raises FormatError for anything else."""
    if path.stat().st_size > 16 << 20:
        raise FormatError(f"{path}: {what}: {path.stat().st_size} bytes, expected at most 16 MiB")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {what}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {what}: found a JSON {type(value).__name__}, expected an object")
    return value


def translate(config_path: Path, generation_path: Path | None = None) -> dict[str, Any]:
    """Metadata under GGUF's keys for a model folder's configuration files.

    Raises:
        FormatError: a file is not a JSON object, or a setting has the wrong type (named).
        UnsupportedError: the weights are stored by a quantisation method of another library.
    """
    config, of_layers = gemma4_settings(text_settings(read_json(config_path, "configuration")))
    config, of_more_layers = gemma3n_settings(config)
    of_layers |= of_more_layers
    for in_flat_words in (gemma_settings, mistral_settings, phi_settings, encoder_settings):
        config = in_flat_words(config)
    settings = _Settings(config_path, config)
    settings.quantisation()
    architecture = settings.architecture()
    settings.out["general.architecture"] = architecture
    if settings.config.pop("use_sliding_window", None) is False:
        settings.config.pop("sliding_window", None)
    settings.rope(architecture)
    for key, (target, kind) in SETTINGS.items():
        settings.move(key, f"{architecture}.{target}", kind)
    settings.move("windowed_layers", f"{architecture}.attention.sliding_window_pattern", list)
    settings.recurrent(architecture)
    if not settings.latent(architecture):
        settings.heads(architecture)
    settings.out.update({f"{architecture}.{key}": value for key, value in of_layers.items()})
    pooling = pooling_settings(config_path.parent, architecture)
    if settings.out["hf.architecture"].endswith("ForSequenceClassification"):
        pooling = {f"{architecture}.pooling_type": POOLING_TYPES["rank"]}
    settings.out.update(pooling)
    if pooling or settings.out["hf.architecture"].endswith("Model"):
        settings.out.pop(f"{architecture}.tie_word_embeddings", None)  # of a head that is not there
    eos = settings.tokens()
    if generation_path is not None:
        generation = _Settings(generation_path, read_json(generation_path, "generation settings"))
        eos = generation.tokens() or eos
        if generation.config.pop("do_sample", None) is not False:
            for key, (target, kind) in SAMPLING.items():
                generation.move(key, f"general.sampling.{target}", kind)
        settings.out.update(generation.out)
        settings.out.update({f"hf.generation.{key}": value for key, value in generation.config.items()})
    if eos:
        settings.out["tokenizer.ggml.eos_token_id"] = eos[0]
        settings.out["tokenizer.ggml.eos_token_ids"] = eos
    settings.out.update({f"hf.{key}": value for key, value in settings.config.items()})
    return settings.out


def settings_of(metadata: Mapping[str, Any], architecture: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The way back: keys of config.json and of generation_config.json for what GGUF metadata says.

    Numbers that GGUF holds as float32 get the shortest decimal that means them.
    """
    config: dict[str, Any] = {}
    for key, (target, kind) in SETTINGS.items():
        value = metadata.get(f"{architecture}.{target}")
        if value is not None:
            config[key] = shortest(value) if kind is float else kind(value)
    scaling = {
        key: shortest(value) if kind is float else value
        for key, (target, kind) in ROPE_SETTINGS.items()
        if key != "rope_theta" and (value := metadata.get(f"{architecture}.rope.{target}")) is not None
    }
    rope_type = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if rope_type != "none":
        config["rope_scaling"] = {"rope_type": rope_type, **scaling}
    generation: dict[str, Any] = {}
    for key, target in TOKENS.items():
        if f"tokenizer.ggml.{target}" in metadata:
            config[key] = generation[key] = int(metadata[f"tokenizer.ggml.{target}"])
    ends = [int(item) for item in metadata.get("tokenizer.ggml.eos_token_ids", ())]
    if not ends and "tokenizer.ggml.eos_token_id" in metadata:
        ends = [int(metadata["tokenizer.ggml.eos_token_id"])]
    if ends:
        config["eos_token_id"] = generation["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    for key, (target, kind) in SAMPLING.items():
        value = metadata.get(f"general.sampling.{target}")
        if value is not None:
            generation[key] = shortest(value) if kind is float else int(value)
    return restore_mistral(config), generation


def shortest(value: Any) -> float:
    """The shortest decimal that means a float32."""
    return float(str(np.float32(value)))


def quantisation_of(config_path: Path) -> dict[str, Any]:
    """How another library stored the weights (``quantization_config``); empty for plain weights.

    Raises:
        UnsupportedError: a method that torchless does not read.
    """
    return _Settings(config_path, read_json(config_path, "configuration")).quantisation()


class _Settings:
    """A configuration file on its way: `config` loses what `out` gains."""

    __slots__ = ("config", "out", "path")

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = dict(config)
        self.out: dict[str, Any] = {}

    def move(self, key: str, target: str, kind: type) -> None:
        """Moves a setting under its new name, checked. Null is the same as absent."""
        value = self.config.pop(key, None)
        if value is not None:
            self.out[target] = self.checked(key, value, kind)

    def checked(self, key: str, value: Any, kind: type) -> Any:
        """The value, if it has the type `kind`: integers from 0 to 2^31 - 1, finite floats."""
        if kind is float:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and -1e300 < value < 1e300:
                return float(value)
        elif kind is int:
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
                return value
        elif isinstance(value, kind):
            return value
        expected = {
            int: "an integer from 0 to 2^31 - 1",
            float: "a number",
            str: "a text",
            bool: "true or false",
            list: "a list",
        }
        raise FormatError(f"{self.path}: {key}: found {value!r:.60}, expected {expected[kind]}")

    def quantisation(self) -> dict[str, Any]:
        """Moves out how another library stored the weights; refuses methods that are not read."""
        found = self.config.pop("quantization_config", None) or self.config.pop("compression_config", None)
        if not found:
            return {}
        method = found.get("quant_method", "unknown") if isinstance(found, dict) else found
        if not isinstance(found, dict) or method not in QUANTISATION_METHODS:
            raise UnsupportedError(
                f"{self.path}: quantization_config: the weights are stored by the method {method!r:.60}; torchless "
                f"reads {', '.join(QUANTISATION_METHODS)}: use the unquantised model or a GGUF of it"
            )
        return found

    def architecture(self) -> str:
        """GGUF's name of the architecture; the original one is kept as ``hf.architecture``."""
        classes = self.config.pop("architectures", None) or []
        model_type = self.config.pop("model_type", None)
        if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes):
            raise FormatError(f"{self.path}: architectures: found {classes!r:.60}, expected a list of names")
        if not isinstance(model_type, str | None):
            raise FormatError(f"{self.path}: model_type: found {model_type!r:.60}, expected a name")
        if not classes and not model_type:
            raise FormatError(f"{self.path}: neither architectures nor model_type is given")
        self.out["hf.architecture"] = classes[0] if classes else model_type
        if model_type is not None:
            self.out["hf.model_type"] = model_type
        if classes and classes[0] in ARCHITECTURES:
            return ARCHITECTURES[classes[0]]
        if model_type and (not classes or classes[0].endswith(("ForCausalLM", "Model"))):
            return MODEL_TYPES.get(model_type, model_type)
        return str(
            classes[0]
        )  # A classifier, an encoder, ...: no model of this name exists, so it is refused.

    def rope(self, architecture: str) -> None:
        """rope_scaling (or rope_parameters, its newer form) as ``<architecture>.rope.*``."""
        source = "rope_parameters" if self.config.get("rope_parameters") else "rope_scaling"
        values = self.config.get(source)
        if values is None:
            self.config.pop(source, None)
            return
        if not isinstance(values, dict):
            raise FormatError(f"{self.path}: {source}: found {values!r:.60}, expected an object")
        if any(isinstance(item, dict) for item in values.values()):
            return  # One set for each kind of layer: stays under hf., for models that have kinds of layers.
        self.config.pop("rope_parameters", None)
        self.config.pop("rope_scaling", None)
        inner = _Settings(self.path, values)
        older = inner.config.pop("type", None)
        kind = inner.config.pop("rope_type", None) or older or "default"
        kind = self.checked(f"{source}.rope_type", kind, str)
        inner.out[f"{architecture}.rope.scaling.type"] = "none" if kind == "default" else kind
        for key, (target, expected) in ROPE_SETTINGS.items():
            inner.move(key, f"{architecture}.rope.{target}", expected)
        partial = inner.config.pop("partial_rotary_factor", None)
        if partial is not None:
            self.config.setdefault("partial_rotary_factor", partial)
        original = f"{architecture}.rope.scaling.original_context_length"
        if kind == "yarn" and original not in inner.out and "max_position_embeddings" in self.config:
            context = self.config["max_position_embeddings"]
            inner.out[original] = self.checked("max_position_embeddings", context, int)
        self.out.update(inner.out)
        self.config.update({f"rope_scaling.{key}": value for key, value in inner.config.items()})

    def heads(self, architecture: str) -> None:
        """Fills in what config.json leaves to defaults: key/value heads and the width of a head."""
        count, width = f"{architecture}.attention.head_count", f"{architecture}.attention.key_length"
        num_heads = self.out.get(count)
        partial = self.config.pop("partial_rotary_factor", None)
        if not num_heads:
            return
        self.out.setdefault(f"{architecture}.attention.head_count_kv", num_heads)
        hidden = self.out.get(f"{architecture}.embedding_length")
        if hidden is not None:
            self.out.setdefault(width, hidden // num_heads)
        if width in self.out:
            head = self.out[width]
            self.out.setdefault(f"{architecture}.attention.value_length", head)
            rotated = 1.0 if partial is None else self.checked("partial_rotary_factor", partial, float)
            self.out[f"{architecture}.rope.dimension_count"] = int(head * rotated)

    def latent(self, architecture: str) -> bool:
        """Sizes of DeepSeek's latent attention, which keeps one key/value head; False for other models."""
        plain = self.config.pop("qk_nope_head_dim", None)
        if plain is None:
            return False

        def size(key: str) -> int:
            return int(self.out.get(f"{architecture}.{key}", 0))

        latent, rotated = size("attention.kv_lora_rank"), size("rope.dimension_count")
        head = self.checked("qk_nope_head_dim", plain, int) + rotated
        sizes = {
            "key_length_mla": head,
            "key_length": latent + rotated,
            "value_length": latent,
            "head_count_kv": 1,
        }
        self.out.update({f"{architecture}.attention.{key}": value for key, value in sizes.items()})
        self.config.pop("qk_head_dim", None)
        is_sigmoid = self.config.get("scoring_func", "softmax") == "sigmoid"
        is_sigmoid = is_sigmoid or self.out.get("hf.model_type") == "deepseek_v3"
        self.out[f"{architecture}.expert_gating_func"] = 2 if is_sigmoid else 1
        growth, other = (self.config.get(f"rope_scaling.{key}") for key in ("mscale_all_dim", "mscale"))
        if growth is not None and growth == other:  # so the rotated elements keep their size
            del self.config["rope_scaling.mscale"], self.config["rope_scaling.mscale_all_dim"]
            multiplier = 0.1 * self.checked("mscale_all_dim", growth, float)
            self.out[f"{architecture}.rope.scaling.yarn_log_multiplier"] = multiplier
        return True

    def recurrent(self, architecture: str) -> None:
        """Sizes of gated delta-nets that GGUF names otherwise, and which layers are attention instead."""
        value = self.config.pop("linear_value_head_dim", None)
        if value is None:
            return
        heads = int(self.out.get(f"{architecture}.ssm.time_step_rank", 0))
        self.out[f"{architecture}.ssm.inner_size"] = heads * self.checked("linear_value_head_dim", value, int)
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list) and "full_attention" in kinds:
            self.out[f"{architecture}.full_attention_interval"] = kinds.index("full_attention") + 1
        sections = self.config.pop("rope_scaling.mrope_section", None)
        if architecture.startswith("qwen35"):  # GGUF files have a fourth one
            sections = [11, 11, 10] if sections is None else self.checked("mrope_section", sections, list)
            self.out[f"{architecture}.rope.dimension_sections"] = [
                *(self.checked("mrope_section", item, int) for item in sections),
                0,
            ]

    def tokens(self) -> list[int]:
        """Moves the special tokens and returns the ids that end a text, which may be several."""
        eos = self.config.pop("eos_token_id", None)
        for key in TOKENS:
            if self.config.get(key) == -1:  # Says "none" in some models.
                del self.config[key]
        ids = eos if isinstance(eos, list) else [] if eos in (None, -1) else [eos]
        for key, target in TOKENS.items():
            self.move(key, f"tokenizer.ggml.{target}", int)
        return [self.checked("eos_token_id", item, int) for item in ids]

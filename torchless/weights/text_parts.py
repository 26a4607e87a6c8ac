"""The language model inside a checkpoint that also sees images or hears: its settings and its tensors.

Such a folder has the settings of the language model under ``text_config`` and its tensors under
``model.language_model.`` or, as most are published, ``language_model.``. What is of images and sound is left out, and
the log says so: the model reads text alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torchless.weights.stored_weights import FileTensor

__all__ = ["text_settings", "text_tensors"]

_log = logging.getLogger("torchless")

_CLASSES = {
    "Qwen3_5ForConditionalGeneration": {"": "Qwen3_5ForCausalLM"},
    "Qwen3_5MoeForConditionalGeneration": {"": "Qwen3_5MoeForCausalLM"},
    "Gemma3ForConditionalGeneration": {"": "Gemma3ForCausalLM"},
    "Mistral3ForConditionalGeneration": {
        "mistral": "MistralForCausalLM",
        "ministral3": "Ministral3ForCausalLM",
    },
    "Gemma3nForConditionalGeneration": {"": "Gemma3nForCausalLM"},
    "Gemma4ForConditionalGeneration": {"": "Gemma4ForCausalLM"},
    "Gemma4UnifiedForConditionalGeneration": {"": "Gemma4UnifiedForCausalLM"},
}
"""Classes of such checkpoints, and of their language model alone by its ``model_type`` (``""``: of any)."""

_OUTER = ("tie_word_embeddings", "quantization_config", "dtype", "torch_dtype", "transformers_version")
"""Settings of the whole that are the language model's too; they win."""

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Settings of the whole that stand in where the language model has none."""

_TEXT = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
}
"""How names of its tensors begin, and how they would in a model without images."""

_OTHERS = tuple(
    f"{begin}{part}."
    for begin in ("model.", "")
    for part in (
        *("visual", "vision_tower", "vision_embedder", "embed_vision", "multi_modal_projector"),
        *("audio_tower", "audio_embedder", "embed_audio"),
    )
)


def text_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the language model; others' as they are.

    >>> outer = {"architectures": ["Qwen3_5ForConditionalGeneration"], "vision_config": {}}
    >>> text_settings({**outer, "text_config": {"hidden_size": 64}})
    {'hidden_size': 64, 'architectures': ['Qwen3_5ForCausalLM']}
    """
    classes, inner = config.get("architectures"), config.get("text_config")
    if not isinstance(classes, list) or not classes or not isinstance(inner, dict):
        return config
    by_type = _CLASSES.get(classes[0], {}) if isinstance(classes[0], str) else {}
    name = by_type.get("") or by_type.get(str(inner.get("model_type")))
    if name is None:
        return config
    outer = {key: config[key] for key in _OUTER if key in config}
    tokens = {key: config[key] for key in _TOKENS if key in config and inner.get(key) is None}
    return {**inner, **tokens, **outer, "architectures": [name]}


def text_tensors(tensors: Mapping[str, FileTensor]) -> dict[str, FileTensor]:
    """The tensors of the language model under the names that they have in a model without images."""
    if not any(name.startswith(tuple(_TEXT)) for name in tensors):
        return dict(tensors)
    found, num_others = {}, 0
    for name, tensor in tensors.items():
        if name.startswith(_OTHERS):
            num_others += 1
            continue
        begin = next((item for item in _TEXT if name.startswith(item)), "")
        short = _TEXT.get(begin, "") + name.removeprefix(begin)
        found[short] = tensor._replace(name=short)
    if num_others:
        _log.info(
            "%d tensors that read images or sound are passed over: the model reads text alone", num_others
        )
    return found

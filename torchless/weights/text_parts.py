"""The language model inside a checkpoint that also sees images: its settings and its tensors.

Such a folder has the settings of the language model under ``text_config`` and its tensors under
``model.language_model.``. What is of images is left out: the model reads text alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchless.weights.stored_weights import FileTensor

__all__ = ["text_settings", "text_tensors"]

_CLASSES = {
    "Qwen3_5ForConditionalGeneration": "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeForCausalLM",
}
"""Classes of such checkpoints, and of their language model alone."""

_OUTER = ("tie_word_embeddings", "quantization_config", "dtype", "torch_dtype", "transformers_version")
"""Settings of the whole that are the language model's too; they win."""

_TEXT, _IMAGES = "model.language_model.", "model.visual."


def text_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the language model; others' as they are.

    >>> outer = {"architectures": ["Qwen3_5ForConditionalGeneration"], "vision_config": {}}
    >>> text_settings({**outer, "text_config": {"hidden_size": 64}})
    {'hidden_size': 64, 'architectures': ['Qwen3_5ForCausalLM']}
    """
    classes, inner = config.get("architectures"), config.get("text_config")
    if not isinstance(classes, list) or not classes or not isinstance(inner, dict):
        return config
    name = _CLASSES.get(classes[0]) if isinstance(classes[0], str) else None
    if name is None:
        return config
    outer = {key: config[key] for key in _OUTER if key in config}
    return {**inner, **outer, "architectures": [name]}


def text_tensors(tensors: Mapping[str, FileTensor]) -> dict[str, FileTensor]:
    """The tensors of the language model under the names that they have in a model without images."""
    if not any(name.startswith(_TEXT) for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith(_IMAGES):
            short = "model." + name.removeprefix(_TEXT) if name.startswith(_TEXT) else name
            found[short] = tensor._replace(name=short)
    return found

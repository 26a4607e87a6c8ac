"""Ministral's folders in the words of GGUF files: which layers have a window, and what makes queries grow."""

from __future__ import annotations

from typing import Any

__all__ = ["mistral_settings", "restore_mistral", "window_settings"]

_MINISTRAL3_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
"""What folders without rotary settings leave to the library."""

_KINDS = ("full_attention", "sliding_attention")


def mistral_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a Ministral model in flat words; others' as they are.

    >>> kinds = ["full_attention", "sliding_attention"]
    >>> mistral_settings({"model_type": "ministral", "sliding_window": 8, "layer_types": kinds})
    {'model_type': 'ministral', 'sliding_window': 8, 'windowed_layers': [False, True]}
    """
    if config.get("model_type") == "ministral":
        return _windows(dict(config))
    if config.get("model_type") == "ministral3":
        return _growth(dict(config))
    return config


def _windows(config: dict[str, Any]) -> dict[str, Any]:
    """Which layers have the window; kinds that are not known stay, so that they are refused by name."""
    kinds, has_window = config.get("layer_types"), config.get("sliding_window") is not None
    known = _KINDS if has_window else _KINDS[:1]
    if isinstance(kinds, list) and kinds and all(kind in known for kind in kinds):
        del config["layer_types"]
        if has_window and _KINDS[0] in kinds:
            config["windowed_layers"] = [kind == _KINDS[1] for kind in kinds]
    return config


def _growth(config: dict[str, Any]) -> dict[str, Any]:
    """What rotary settings say of magnitudes, beside them."""
    source = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(source) or _MINISTRAL3_ROPE
    if not isinstance(rope, dict):
        return config
    rope = dict(rope)
    rope.pop("max_position_embeddings", None)  # the model's own, said again
    if rope.get("llama_4_scaling_beta") is not None:
        config["llama_4_scaling_beta"] = rope.pop("llama_4_scaling_beta")
    own, every = rope.get("mscale"), rope.get("mscale_all_dim")
    if rope.get("attention_factor") is not None or not (own and every):
        rope.pop("mscale", None), rope.pop("mscale_all_dim", None)  # not used
    elif own in (1, every):  # equal ones cancel; others are refused by name
        config["yarn_log_multiplier"] = every if own == 1 else 1.0
        del rope["mscale"], rope["mscale_all_dim"]
    config[source] = rope
    return config


def restore_mistral(config: dict[str, Any]) -> dict[str, Any]:
    """The way back: settings made of a GGUF file alone, with those of magnitudes inside the rotary ones."""
    growth, every = config.pop("llama_4_scaling_beta", None), config.pop("yarn_log_multiplier", None)
    found: dict[str, Any] = {} if growth is None else {"llama_4_scaling_beta": growth}
    if every:
        found |= {"mscale": 1.0, "mscale_all_dim": every}
    if found:
        config["rope_scaling"] = {**config.get("rope_scaling", {}), **found}
    return config


def window_settings(windowed: tuple[bool, ...]) -> dict[str, Any]:
    """Settings of a model made of a GGUF file in which some layers have a window."""
    return {
        "architectures": ["MinistralForCausalLM"],
        "model_type": "ministral",
        "layer_types": [_KINDS[has_window] for has_window in windowed],
    }

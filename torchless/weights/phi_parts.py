"""Settings of Phi's folders that have defaults or names of their own."""

from __future__ import annotations

from typing import Any

__all__ = ["phi_settings", "restore_phi"]


def phi_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a Phi model with what the library takes for granted; others' as they are.

    >>> phi_settings({"model_type": "phi"})
    {'partial_rotary_factor': 0.5, 'model_type': 'phi'}
    """
    kind = config.get("model_type")
    if kind not in ("phi", "phimoe"):
        return config
    source = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    rope = config.get(source)
    rope = dict(rope) if isinstance(rope, dict) else {}
    if kind == "phi":
        return config if "partial_rotary_factor" in rope else {"partial_rotary_factor": 0.5, **config}
    short = rope.get("short_mscale")
    if short is not None and short == rope.get("long_mscale"):  # others are refused by name
        del rope["short_mscale"], rope["long_mscale"]
        return {**config, source: {**rope, "attention_factor": short}}
    return config


def restore_phi(settings: dict[str, Any], *, has_output_bias: bool, magnitude: float) -> dict[str, Any]:
    """The way back: settings of a Phi-3.5-MoE made of a GGUF file alone; others' as they are."""
    if settings.get("model_type") != "phimoe":
        return settings
    found = {**settings, "lm_head_bias": has_output_bias, "router_jitter_noise": 0.01}
    if "rope_scaling" in found:
        rope = {**found["rope_scaling"], "short_mscale": magnitude, "long_mscale": magnitude}
        found["rope_scaling"] = rope
    return found

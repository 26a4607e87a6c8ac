"""Settings of Phi's folders that have defaults or names of their own."""

from __future__ import annotations

from typing import Any

__all__ = ["phi_settings"]


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

"""LoRA adapters made on the spot for small random models: folders of the peft library, written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

Matrices = dict[str, tuple[np.ndarray, np.ndarray]]


def module_shapes(weights: dict[str, np.ndarray], targets: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shape of each module's weight, by the module's name, of those that end in one of `targets`; experts left out."""
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    return {
        name: weights[name + ".weight"].shape
        for name in names
        if name.split(".")[-1] in targets and ".experts." not in name
    }


def write_adapter(
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    *,
    rank: int = 4,
    alpha: float = 6.0,
    seed: int = 1,
    dtype: Any = np.float32,
    tensors: dict[str, np.ndarray] | None = None,
    **settings: Any,
) -> Matrices:
    """Fills a folder; returns a and b by module. `settings` replaces keys of adapter_config.json (None deletes)."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    matrices: Matrices = {}
    stored: dict[str, np.ndarray] = {}
    for module, (num_out, num_in) in shapes.items():
        r = next((n for key, n in settings.get("rank_pattern", {}).items() if module.endswith(key)), rank)
        a = (random.standard_normal((r, num_in)) * num_in**-0.5).astype(dtype)
        b = (random.standard_normal((num_out, r)) * 0.3).astype(dtype)
        matrices[module] = a.astype(np.float32), b.astype(np.float32)
        stored[f"base_model.model.{module}.lora_A.weight"] = a
        stored[f"base_model.model.{module}.lora_B.weight"] = b
    save_file({**stored, **(tensors or {})}, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "someone/some-model",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.1,
        "target_modules": sorted({module.split(".")[-1] for module in shapes}),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "init_lora_weights": True,
        **settings,
    }
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
    return matrices


def merged(weights: dict[str, np.ndarray], matrices: Matrices, scale: float) -> dict[str, np.ndarray]:
    """The weights with ``scale * b @ a`` added, in float64, as float32."""
    result = dict(weights)
    for module, (a, b) in matrices.items():
        name = module + ".weight"
        total = result[name].astype(np.float64) + scale * (b.astype(np.float64) @ a.astype(np.float64))
        result[name] = total.astype(np.float32)
    return result


def scale_of(rank: int, alpha: float, *, rslora: bool = False) -> float:
    """What the product counts."""
    return alpha / (math.sqrt(rank) if rslora else rank)

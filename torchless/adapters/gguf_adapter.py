"""Reads and writes adapters as GGUF files, in llama.cpp's convention.

``general.type`` is ``"adapter"``, ``adapter.type`` is ``"lora"``, ``adapter.lora.alpha`` counts as alpha / rank; for
each weight there are two tensors, ``NAME.lora_a`` (rank, in) and ``NAME.lora_b`` (out, rank). Rows of queries and keys
lie as in the GGUF file of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torchless import quants
from torchless.adapters.adapter import Adapter, LowRank, checked_part
from torchless.adapters.files import is_adapter
from torchless.errors import FormatError, UnsupportedError
from torchless.quants import Floats
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_writer import write_gguf

__all__ = ["adapter_from_gguf", "write_adapter"]

_ALPHA = "adapter.lora.alpha"
_SUFFIXES = {".lora_a": 0, ".lora_b": 1}


def adapter_from_gguf(path: Path) -> Adapter:
    """Reads a GGUF adapter.

    Raises:
        FormatError: it is no adapter, or a broken one.
        UnsupportedError: an adapter of another kind, by name.
    """
    with GgufSource(path) as source:
        metadata = source.metadata
        if not is_adapter(metadata):
            raise FormatError(
                f"{path}: general.type is {metadata.get('general.type', 'absent')!r}, expected 'adapter': this is a "
                f"model, not a LoRA adapter"
            )
        kind = metadata.get("adapter.type")
        if kind != "lora":
            raise UnsupportedError(f"{path}: adapter.type is {kind!r}; torchless applies 'lora'")
        for key in metadata:
            if key.startswith("adapter.alora"):
                raise UnsupportedError(f"{path}: {key}: torchless does not apply activated LoRA (aLoRA)")
        alpha = _alpha(path, metadata)
        found: dict[str, list[Floats | None]] = {}
        for info in source.tensors.values():
            name, index = info.name[:-7], _SUFFIXES.get(info.name[-7:])
            if index is None:
                raise UnsupportedError(
                    f"{path}: tensor {info.name!r} is neither NAME.lora_a nor NAME.lora_b; torchless applies nothing "
                    f"else of an adapter"
                )
            if "_exps." in name:
                raise UnsupportedError(
                    f"{path}: the adapter changes {name}, which belongs to experts; torchless adapts linear layers "
                    f"only: merge it into the model's floats where it was trained"
                )
            values = quants.by_name(info.type).decode(source.raw(info.name)).astype(np.float32)
            found.setdefault(name, [None, None])[index] = values.reshape(info.shape)
        if not found:
            raise FormatError(f"{path}: the adapter has no tensors")
        parts = {}
        for name, (a, b) in found.items():
            rank = 1 if a is None or a.ndim != 2 else max(a.shape[0], 1)
            parts[name] = checked_part(path, name, a, b, alpha / rank)
        return Adapter(
            path=path,
            format="gguf",
            architecture=str(metadata.get("general.architecture", "")),
            name=str(metadata.get("general.name", "")),
            base=str(metadata.get("general.base_model.0.name", "")),
            alpha=alpha,
            parts=parts,
            rope_layout="interleaved",
        )


def _alpha(path: Path, metadata: Mapping[str, Any]) -> float:
    alpha = metadata.get(_ALPHA)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        found = "it is missing" if alpha is None else f"found {alpha!r}"
        raise FormatError(
            f"{path}: {_ALPHA}: {found}, expected a number above 0; without it nobody knows what the adapter "
            f"counts: convert it again"
        )
    return float(alpha)


def write_adapter(path: Path, adapter: Adapter, architecture: str, parts: Mapping[str, LowRank]) -> None:
    """Writes a GGUF adapter in F32.

    Each weight counts alpha / rank there. Where that is not what it counts here (alphas by weight, square roots), the
    difference goes into b.

    Args:
        architecture: GGUF's name of the model's.
        parts: the adapter's matrices as the model's GGUF file orders them.
    """
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "general.name": adapter.name or adapter.path.name,
        "adapter.type": "lora",
        _ALPHA: np.float32(adapter.alpha),
    }
    if adapter.base:
        metadata["general.base_model.count"] = np.uint32(1)
        metadata["general.base_model.0.name"] = adapter.base
    tensors = []
    for name, part in parts.items():
        factor = part.scale / (float(np.float32(adapter.alpha)) / part.rank)
        b = part.b if abs(factor - 1) < 1e-7 else (part.b * np.float64(factor)).astype(np.float32)
        for suffix, values in ((".lora_a", part.a), (".lora_b", b)):
            raw = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
            tensors.append((name + suffix, values.shape, "F32", raw))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, metadata, tensors)

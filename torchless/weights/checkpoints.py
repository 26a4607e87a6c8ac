"""From the tensors of safetensors files to weights: scales and packed parts joined with what they belong to.

Checkpoints of quantisation libraries store one weight as several tensors: 8-bit floats with ``weight_scale`` or
``weight_scale_inv`` beside them, 4-bit codes with zeros and scales (see `four_bit`). What only quantises activations
or caches is left out: it does not change the weights.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torchless.errors import FormatError, UnsupportedError
from torchless.weights.four_bit import PARTS, check_method, four_bit_weight
from torchless.weights.fused_experts import fused_experts, is_fused
from torchless.weights.names import canonical_name
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import (
    DECODED,
    PLAIN,
    SCALED,
    FileTensor,
    MappedWeight,
    StoredWeight,
    decoded_weight,
    scaled_weight,
)

__all__ = ["join_weights"]

_log = logging.getLogger("torchless")

_SCALES = ("weight_scale_inv", "weight_scale")
_NOT_WEIGHTS = (
    "input_scale",
    "input_scale_ub",
    "output_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "activation_scale",
)


def join_weights(
    tensors: Mapping[str, FileTensor], settings: Mapping[str, Any], *, tied: bool
) -> Iterator[StoredWeight]:
    """The weights of a model in file order, without buffers and tied copies.

    Args:
        tensors: all tensors by their Hugging Face names.
        settings: quantization_config of the model's configuration; empty where there is none.

    Raises:
        UnsupportedError: a type that cannot be read, by name.
        FormatError: scales that do not fit.
    """
    block = _block_size(settings)
    check_method(settings)
    counts: Counter[tuple[str, str, bool]] = Counter()
    for tensor in tensors.values():
        if is_fused(tensor.name):
            yield from fused_experts(tensor, tensors)
            continue
        parent, _, part = tensor.name.rpartition(".")
        if part in _NOT_WEIGHTS or (part in _SCALES and f"{parent}.weight" in tensors):
            continue
        if part in PARTS and f"{parent}.qweight" in tensors:
            if part == "qweight" and not (tied and canonical_name(f"{parent}.weight") == "output.weight"):
                weight, is_exact = _four_bit(parent, tensors, settings)
                counts["4-bit codes", weight.info.type, is_exact] += 1
                yield weight
            continue
        name = canonical_name(tensor.name)
        if name is None or (tied and name == "output.weight"):
            continue
        dtype = tensor.stored.dtype
        scale = next((found for item in _SCALES if (found := tensors.get(f"{parent}.{item}"))), None)
        scale = scale if part == "weight" else None
        if dtype in SCALED and (scale is not None or dtype != "I8"):
            counts[dtype, "BF16", scale is None] += 1
            yield scaled_weight(name, tensor, scale, block)
        elif scale is not None:
            raise UnsupportedError(
                f"{tensor.file.path}: tensor {tensor.name!r} has the type {dtype} and scales beside it; torchless "
                f"reads scales for {', '.join(SCALED)}"
            )
        elif dtype in PLAIN:
            info = TensorInfo(name, tensor.stored.shape, dtype, tensor.stored.num_bytes)
            yield MappedWeight(info, tensor)
        elif dtype in DECODED:
            yield decoded_weight(name, tensor)
        else:
            raise UnsupportedError(
                f"{tensor.file.path}: tensor {tensor.name!r} has the type {dtype}; torchless reads "
                f"{', '.join((*PLAIN, *DECODED))} from safetensors files"
            )
    for (stored, read, is_exact), count in counts.items():
        tensors_are = "1 tensor is" if count == 1 else f"{count} tensors are"
        how = "exactly" if is_exact else "rounded to the nearest"
        _log.info("%s stored as %s and read as %s, %s", tensors_are, stored, read, how)


def _four_bit(
    parent: str, tensors: Mapping[str, FileTensor], settings: Mapping[str, Any]
) -> tuple[StoredWeight, bool]:
    """The weight of a layer with codes, and whether it is exact."""
    if settings.get("quant_method") not in ("gptq", "awq"):
        codes = tensors[f"{parent}.qweight"]
        raise UnsupportedError(
            f"{codes.file.path}: tensor {codes.name!r}: codes of 4 bits, but config.json names no method for them "
            f"(quantization_config.quant_method, gptq or awq); get the model's own config.json"
        )
    found = {part: tensors[f"{parent}.{part}"] for part in PARTS if f"{parent}.{part}" in tensors}
    return four_bit_weight(canonical_name(f"{parent}.weight") or parent, found, settings)


def _block_size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    found = settings.get("weight_block_size")
    if found is None:
        return 128, 128
    if (
        isinstance(found, list)
        and len(found) == 2
        and all(type(item) is int and 0 < item < 2**31 for item in found)
    ):
        return found[0], found[1]
    raise FormatError(f"quantization_config.weight_block_size: found {found!r:.60}, expected two sizes")

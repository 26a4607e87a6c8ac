"""Number formats in which products take their activations, and how a user names them.

Weights have their types, cached keys and values theirs (`kv_types`), and this is the third: what a product multiplies
the weights with. The least precise of the three decides how exact a product is.
"""

from __future__ import annotations

from typing import Any

from torchless.errors import InvalidRequestError

__all__ = ["ACTIVATION_TYPES", "ActivationType", "activation_type", "multiplied_type"]

ActivationType = str
"""One of `ACTIVATION_TYPES`."""

ACTIVATION_TYPES = ("int8", "bf16", "f32")
"""From fast to exact. ``int8``: quantised weights are multiplied as whole numbers with 8-bit activations, which have
one scale for 32 or 256 neighbours. ``bf16`` and ``f32``: weights are turned into such numbers first, and activations
are at least that exact."""

_OF_FLOATS = {"F64": "f32", "F32": "f32", "F16": "f32", "BF16": "bf16"}


def activation_type(value: Any) -> ActivationType:
    """`value`, checked.

    Raises:
        InvalidRequestError: it is none of `ACTIVATION_TYPES`.
    """
    if value not in ACTIVATION_TYPES:
        raise InvalidRequestError(f"activations must be one of {', '.join(ACTIVATION_TYPES)}; got {value!r}")
    return str(value)


def multiplied_type(weight_type: str, activations: ActivationType) -> ActivationType:
    """What weights of a type are multiplied with where `activations` is the least: floats never take bytes.

    Example:
        >>> [multiplied_type("Q4_K", kind) for kind in ("int8", "bf16")], multiplied_type("F16", "int8")
        (['int8', 'bf16'], 'f32')
    """
    at_least = _OF_FLOATS.get(weight_type, "int8")
    return max(at_least, activations, key=ACTIVATION_TYPES.index)

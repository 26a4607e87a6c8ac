"""Number formats of cached keys and values, and how a user names them."""

from __future__ import annotations

from torchless.errors import InvalidRequestError

__all__ = ["KV_TYPES", "bytes_per_token", "kv_type_name", "split_kv_type"]

KV_TYPES = ("f16", "bf16", "f32", "q8_0", "q4_0")
"""q8_0 and q4_0 hold 8-bit and 4-bit whole numbers with one float16 scale for 32 neighbouring elements."""

_BLOCK = 32


def split_kv_type(text: str) -> tuple[str, str]:
    """Types of keys and of values.

    Args:
        text: one type for both, such as ``"q8_0"``, or each by name: ``"k=q8_0,v=f16"``.

    Raises:
        InvalidRequestError: anything else.

    Example:
        >>> split_kv_type("q8_0"), split_kv_type("k=q8_0,v=f16")
        (('q8_0', 'q8_0'), ('q8_0', 'f16'))
    """
    parts = [part.strip().partition("=") for part in str(text).split(",")]
    if len(parts) == 1 and not parts[0][1]:
        found = {"k": parts[0][0], "v": parts[0][0]}
    else:
        found = {name.strip(): value.strip() for name, _, value in parts}
    if set(found) != {"k", "v"} or len(parts) > 2 or not set(found.values()) <= set(KV_TYPES):
        raise InvalidRequestError(
            f"kv must be one of {', '.join(KV_TYPES)}, or two as in k=q8_0,v=f16; got {text!r}"
        )
    return found["k"], found["v"]


def kv_type_name(k_type: str, v_type: str) -> str:
    """The shortest text that `split_kv_type` reads as these types."""
    return k_type if k_type == v_type else f"k={k_type},v={v_type}"


def bytes_per_token(kv_type: str, num_layers: int, num_kv_heads: int, head_dim: int) -> int:
    """Bytes of the cache for one token, padding apart."""
    total = 0
    for name in split_kv_type(kv_type):
        if name in ("q8_0", "q4_0"):
            blocks = -(-head_dim // _BLOCK)
            total += blocks * 2 + (head_dim if name == "q8_0" else blocks * _BLOCK // 2)
        else:
            total += head_dim * (4 if name == "f32" else 2)
    return num_layers * num_kv_heads * total

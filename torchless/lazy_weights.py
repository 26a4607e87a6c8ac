"""Which weights may stay in the file while a model runs: the values of ``lazy``."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torchless.errors import InvalidRequestError

__all__ = ["LazyWeights", "lazy_weights", "memory_bytes"]

LazyWeights: TypeAlias = Literal["off", "all", "experts"]
"""``off``: all are packed when a model is loaded. ``all``: matrices stay in the file's memory map, and a few rows at a
time are packed as they are used. ``experts``: only those of a mixture of experts do."""

_KINDS: tuple[LazyWeights, ...] = ("off", "all", "experts")


def lazy_weights(value: Any, quant: str | None, backend: str) -> LazyWeights:
    """Checks what a caller gave: a name, or True for ``all`` and False for ``off``.

    Raises:
        InvalidRequestError: something else, or something that does not go with `quant` or `backend`.
    """
    kind: LazyWeights = _kind(value)
    if kind != "off" and quant is not None:
        raise InvalidRequestError(
            "lazy weights stay in the file as they are, so quant cannot change them: write a quantised file first "
            "(torchless quantize), or leave one of the two out"
        )
    if kind != "off" and backend != "cpu":
        raise InvalidRequestError(f"lazy goes with backend 'cpu', not {backend!r}: leave one of the two out")
    return kind


def memory_bytes(size: Any) -> int | None:
    """Bytes of ``"8GiB"`` or a number; None where nothing was said. Raises InvalidRequestError."""
    from torchless.quantization.quantize import parse_size

    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int | str) or (isinstance(size, int) and size < 0):
        raise InvalidRequestError(f'memory must be a size such as "8GiB" or a number of bytes, got {size!r}')
    return parse_size(size)


def _kind(value: Any) -> LazyWeights:
    if isinstance(value, bool):
        return "all" if value else "off"
    for kind in _KINDS:
        if value == kind:
            return kind
    raise InvalidRequestError(f'lazy must be True, False or "experts", got {value!r}')

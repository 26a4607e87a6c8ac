"""The CPU backend: hands a lowered plan to the C++ core (`torchless._core`)."""

from __future__ import annotations

from torchless.backends.cpu.executor import compile, required_bytes

__all__ = ["compile", "required_bytes"]

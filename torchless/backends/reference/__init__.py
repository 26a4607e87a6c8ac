"""The reference backend: NumPy float64, runs any plan. Slow and exact: the oracle of the tests."""

from __future__ import annotations

from torchless.backends.reference.executor import ReferenceExecutor, compile, required_bytes

__all__ = ["ReferenceExecutor", "compile", "required_bytes"]

"""Fixtures of the kernel tests: the kernels of every instruction-set level that this machine offers."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def kernels() -> ModuleType:
    """The extension's `kernels` submodule."""
    return pytest.importorskip("torchless._core").kernels


@pytest.fixture(params=["scalar", "avx2", "avxvnni", "avx512", "amx"])
def level(request: pytest.FixtureRequest, kernels: ModuleType) -> str:
    """Each level in turn; those that the machine lacks are skipped."""
    if request.param not in kernels.levels():
        pytest.skip(f"this machine has no {request.param}")
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)

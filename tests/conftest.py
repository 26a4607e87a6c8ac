"""Fixtures shared by all tests: where outside data lies, and which instruction sets this machine has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Background jobs of a shell start with SIGINT ignored, which is inherited: processes of tests must hear it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file or folder of test data made by others; skips the test where it is absent."""
    roots = [Path(p) for p in [os.environ.get("TORCHLESS_TEST_DATA", "")] if p]
    roots.append(REPOSITORY.parent / "shared" / "data")

    def find(name: str) -> Path:
        for root in roots:
            if (root / name).exists():
                return root / name
        pytest.skip(f"test data {name!r} is not on this machine (set TORCHLESS_TEST_DATA to its folder)")

    return find

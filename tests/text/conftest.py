"""Every text test has a tokenizer cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.getbasetemp() / "tokenizer-cache"
    monkeypatch.setenv("TORCHLESS_CACHE", str(folder))
    yield folder

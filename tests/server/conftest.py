"""Fixtures of the server's tests: the built-in model, loaded once, and a server for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="the server's libraries are not installed (the extra 'server')")
pytest.importorskip("uvicorn")
pytest.importorskip("msgspec")

from servers import Running, is_at_rest, running

import torchless
from torchless.llm import LLM


@pytest.fixture(scope="session")
def stories() -> Iterator[LLM]:
    """The built-in model."""
    with torchless.load(threads=1) as llm:
        yield llm


@pytest.fixture(scope="session")
def server(stories: LLM) -> Iterator[Running]:
    """A server for the built-in model."""
    with running(stories) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(stories: LLM) -> Iterator[None]:
    """After each test the model has nothing left to do."""
    yield
    for _ in range(500):
        if is_at_rest(stories):
            return
    raise AssertionError("a request is still under way after its test")

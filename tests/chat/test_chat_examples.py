"""The examples in the docstrings of the chat and of what it builds on run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "torchless.chat.remote",
        "torchless.sampling.parameters",
        "torchless.text.reasoning",
        "torchless.text.templates",
        "torchless.text.thinking",
    ],
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0

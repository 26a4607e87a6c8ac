"""The examples in the docstrings of weights and quants run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "torchless.quants",
        "torchless.weights.gguf_writer",
        "torchless.weights.names",
        "torchless.weights.shards",
        "torchless.conversion.convert",
        "torchless.conversion.families",
        "torchless.conversion.rotary_rows",
    ],
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0

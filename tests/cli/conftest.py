"""Fixtures of the command line's tests."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import FakeLLM
from cli_models import CHAT_TEMPLATE, write_model

import torchless
from torchless.cli import main


@pytest.fixture
def fake_llm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeLLM]:
    """Makes a fake and lets `torchless.load` return it."""

    def make(*answers: list[object], has_template: bool = False) -> FakeLLM:
        llm = FakeLLM(answers or (["Hello", " there"],), has_template=has_template)
        monkeypatch.setattr(torchless, "load", llm.load, raising=False)
        return llm

    return make


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (status, stdout, stderr)."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real model without a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real model with a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-chat.gguf", chat_template=CHAT_TEMPLATE)

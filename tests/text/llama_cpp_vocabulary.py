"""llama.cpp's reading of a vocabulary."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from torchless.weights.gguf_writer import write_gguf


class LlamaCppVocabulary:
    """The vocabulary of a file; with `metadata` (``tokenizer.*`` keys) the file is made of it first."""

    def __init__(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        self.library = pytest.importorskip("llama_cpp")
        if metadata is not None:
            write_gguf(path, {"general.architecture": "llama", **metadata}, [])
        parameters = self.library.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self.library.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, "llama.cpp does not load the vocabulary"
        self.vocabulary = self.library.llama_model_get_vocab(self._model)

    def __enter__(self) -> LlamaCppVocabulary:
        return self

    def __exit__(self, *details: object) -> None:
        self.library.llama_model_free(self._model)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids without those that a prompt gets around it."""
        data = text.encode()
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, room, False, parse_special)
        assert count >= 0
        return list(ids[:count])

"""llama.cpp's reading of a GBNF grammar."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import torchless
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource

BUILT_IN = Path(torchless.__file__).parent / "data" / "stories.gguf"


class LlamaCppGrammars:
    """Asks llama.cpp whether texts match grammars, token by token of single bytes of the built-in model."""

    def __init__(self) -> None:
        self.library = pytest.importorskip("llama_cpp")
        parameters = self.library.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self.library.llama_model_load_from_file(str(BUILT_IN).encode(), parameters)
        if not self._model:
            pytest.skip("this llama.cpp does not load the built-in model's vocabulary")
        self._vocabulary = self.library.llama_model_get_vocab(self._model)
        with GgufSource(BUILT_IN) as source:
            tokenizer = Tokenizer.from_metadata(source.metadata)
        pieces = {tokenizer.token_bytes(index): index for index in range(tokenizer.vocab_size)}
        self._ids = [pieces.get(bytes([byte])) for byte in range(256)]
        self._end = self.library.llama_vocab_eos(self._vocabulary)

    def close(self) -> None:
        self.library.llama_model_free(self._model)

    def accepts(self, source: str, text: str) -> bool:
        """Whether the text matches as a whole."""
        library = self.library
        sampler = library.llama_sampler_init_grammar(self._vocabulary, source.encode(), b"root")
        assert sampler, "llama.cpp does not read the grammar"
        try:
            for byte in text.encode():
                token = self._ids[byte]
                assert token is not None, f"the vocabulary has no token for byte {byte}"
                if not self._allows(sampler, token):
                    return False
                library.llama_sampler_accept(sampler, token)
            return self._allows(sampler, self._end)
        finally:
            library.llama_sampler_free(sampler)

    def _allows(self, sampler: object, token: int) -> bool:
        data = (self.library.llama_token_data * 1)(self.library.llama_token_data(token, 1.0, 0.0))
        array = self.library.llama_token_data_array(data, 1, -1, False)
        self.library.llama_sampler_apply(sampler, ctypes.byref(array))
        return data[0].logit != float("-inf")

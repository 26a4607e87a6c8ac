"""WordPiece and Unigram, the tokenizers of encoders, as GGUF metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from torchless.text.tokenizer_encoders import gguf_word_pieces
from torchless.text.vocabulary import TokenType

__all__ = ["unigram", "word_pieces"]

_GGML = "tokenizer.ggml."


def word_pieces(tokens: list[str], types: list[int]) -> dict[str, Any]:
    """Texts and types by id -> metadata of the model "bert"."""
    return {
        _GGML + "model": "bert",
        _GGML + "pre": "default",
        _GGML + "tokens": gguf_word_pieces(tokens),
        _GGML + "token_type": types,
    }


def unigram(tokens: list[str], types: list[int], state: Mapping[str, Any]) -> dict[str, Any]:
    """Texts and types by id, and the library's description -> metadata of the model "t5"."""
    scores = np.zeros(len(tokens), np.float32)
    for index, (_, score) in enumerate(state["model"]["vocab"]):
        scores[index] = score
    unknown = state["model"].get("unk_id")
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    found = {
        _GGML + "model": "t5",
        _GGML + "pre": "default",
        _GGML + "tokens": tokens,
        _GGML + "scores": scores,
        _GGML + "token_type": types,
        _GGML + "add_space_prefix": any(
            step.get("prepend_scheme", "always") != "never" for step in _steps(state, "Metaspace")
        ),
        _GGML + "remove_extra_whitespaces": bool(
            _steps(state, "WhitespaceSplit") or _steps(state, "Replace")
        ),
    }
    charsmaps = [step["precompiled_charsmap"] for step in _steps(state, "Precompiled")]
    if charsmaps and charsmaps[0]:
        found[_GGML + "precompiled_charsmap"] = np.frombuffer(base64.b64decode(charsmaps[0]), np.int8)
    return found


def _steps(state: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The steps of one kind before the model."""

    def found(step: Any) -> list[dict[str, Any]]:
        if not isinstance(step, dict):
            return []
        inner = [*step.get("normalizers", ()), *step.get("pretokenizers", ())]
        return [step] * (step.get("type") == kind) + [hit for item in inner for hit in found(item)]

    return found(state.get("normalizer")) + found(state.get("pre_tokenizer"))

"""WordPiece and Unigram, the tokenizers of encoders, as parts of the JSON that the `tokenizers` library loads.

WordPiece cuts a word into the longest pieces from the left (Devlin et al. 2018). GGUF files mark the pieces that begin
a word with U+2581 in front; the library, as BERT's vocab.txt, marks those that go on, with ``##``. Unigram takes the
pieces whose probabilities have the largest product (Kudo 2018).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError
from torchless.text.vocabulary import TokenType, Vocabulary

__all__ = ["gguf_word_pieces", "unigram_parts", "word_piece_parts", "word_piece_texts"]

_BEGINS_WORD, _GOES_ON = "\u2581", "##"
_LONGEST_WORD = 100  # characters; a longer one is unknown, as in BERT
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def word_piece_texts(texts: Sequence[str], types: npt.NDArray[np.int32]) -> list[str]:
    """GGUF's texts in the library's way of writing. Special tokens stay as they are."""
    special = np.isin(types, (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED, TokenType.UNUSED))
    return [
        text
        if is_special
        else text[len(_BEGINS_WORD) :]
        if text.startswith(_BEGINS_WORD)
        else text
        if _is_bracketed(text)
        else _GOES_ON + text
        for text, is_special in zip(texts, special.tolist(), strict=True)
    ]


def gguf_word_pieces(texts: Sequence[str]) -> list[str]:
    """The library's texts in GGUF's way of writing: the other direction."""
    return [
        text if _is_bracketed(text) else text[2:] if text.startswith(_GOES_ON) else _BEGINS_WORD + text
        for text in texts
    ]


def _is_bracketed(text: str) -> bool:
    return len(text) > 2 and text[0] == "[" and text[-1] == "]"  # [CLS] and [unused7], in files without types


def word_piece_parts(vocabulary: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """Normaliser, words and model. Whether case counts is told by the vocabulary: files do not say it."""
    unknown = vocabulary.special_ids.get("unknown")
    if unknown is None:
        raise FormatError("tokenizer.ggml.unknown_token_id is missing or outside the vocabulary")
    keeps_case = any(_LETTERS.intersection(text) for text in texts if not _is_bracketed(text))
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": not keeps_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": _GOES_ON, "cleanup": False},
        "model": {
            "type": "WordPiece",
            "unk_token": texts[unknown],
            "continuing_subword_prefix": _GOES_ON,
            "max_input_chars_per_word": _LONGEST_WORD,
            "vocab": {text: index for index, text in enumerate(texts)},
        },
    }


def unigram_parts(vocabulary: Vocabulary, texts: Sequence[str]) -> dict[str, Any]:
    """Normaliser, spaces and model."""
    steps: list[dict[str, Any]] = []
    if vocabulary.charsmap:
        charsmap = base64.b64encode(vocabulary.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    scheme = "always" if vocabulary.add_space_prefix else "never"
    spaces = {"type": "Metaspace", "replacement": _BEGINS_WORD, "prepend_scheme": scheme, "split": True}
    words: dict[str, Any] = spaces
    if vocabulary.remove_extra_spaces:
        words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]}
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": words,
        "decoder": spaces,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.special_ids.get("unknown"),
            "vocab": [[text, float(score)] for text, score in zip(texts, vocabulary.scores, strict=True)],
            "byte_fallback": bool((vocabulary.types == TokenType.BYTE).any()),
        },
    }

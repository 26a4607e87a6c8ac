"""Turns a checked vocabulary into the JSON that the `tokenizers` library loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError
from torchless.text.end_tokens import CONTROL_TEXTS
from torchless.text.pieces import BYTE_LETTERS
from torchless.text.pretokenizers import DIGITS, NUMBERS, PUNCTUATION, PreTokenizer
from torchless.text.tokenizer_encoders import unigram_parts, word_piece_parts, word_piece_texts
from torchless.text.tokenizer_spm import spm_merges
from torchless.text.vocabulary import TokenType, Vocabulary

__all__ = ["BuiltTokenizer", "build_tokenizer", "byte_level_text_rules"]

# Bytes that occur in UTF-8; the others need no token.
_UTF8_BYTES = frozenset(range(256)) - frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))


@dataclass(frozen=True, slots=True)
class BuiltTokenizer:
    """What it takes to make a tokenizer: the slow part of loading one, and what the cache on disk keeps.

    Attributes:
        json: description that the `tokenizers` library loads.
        raw_tokens: bytes of the tokens whose text in `json` does not say them.
        missing_bytes: bytes that no token stands for; text with one of them cannot be encoded.
    """

    json: str
    raw_tokens: dict[int, bytes] = field(default_factory=dict)
    missing_bytes: frozenset[int] = frozenset()


def build_tokenizer(vocabulary: Vocabulary) -> BuiltTokenizer:
    """Builds the description of any of the models.

    Raises:
        FormatError: a token is not a string, or two tokens have the same text.
    """
    texts, raw_tokens = _clean_texts(list(vocabulary.tokens))
    if vocabulary.model == "bert":
        texts = word_piece_texts(texts, vocabulary.types)
    ids = dict(zip(texts, range(len(texts)), strict=True))
    if len(ids) != len(texts):
        raise FormatError(_duplicate(texts))
    merges: Sequence[Any] = list(vocabulary.merges)
    types = _corrected_types(vocabulary, ids, merges)
    types[list(raw_tokens)] = TokenType.UNDEFINED
    if vocabulary.model in ("bert", "t5"):
        parts = (word_piece_parts if vocabulary.model == "bert" else unigram_parts)(vocabulary, texts)
        return BuiltTokenizer(_described(_added_tokens(texts, types, strip=False), parts), raw_tokens)
    unknown = vocabulary.special_ids.get("unknown")
    missing: frozenset[int] = frozenset()
    if vocabulary.model == "llama":
        mergeable = np.isin(types, (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED))
        merges = spm_merges(texts, vocabulary.scores, mergeable)
        text_rules = _spm_text_rules(vocabulary)
    elif not vocabulary.is_byte_level:
        text_rules = _spm_text_rules(vocabulary)
    else:
        assert vocabulary.pre is not None
        text_rules = byte_level_text_rules(vocabulary.pre)
        # Padding up to the size of the model's output, never part of a text.
        raw_tokens.update(dict.fromkeys(np.flatnonzero(types == TokenType.UNUSED).tolist(), b""))
        if unknown is None:
            missing = frozenset(byte for byte in _UTF8_BYTES if BYTE_LETTERS[byte] not in ids)
    model = {
        "type": "BPE",
        "unk_token": None if unknown is None else texts[unknown],
        "fuse_unk": not vocabulary.is_byte_level,
        "byte_fallback": not vocabulary.is_byte_level,
        "ignore_merges": vocabulary.pre is not None and vocabulary.pre.ignore_merges,
        "vocab": ids,
        "merges": merges,
    }
    added = _added_tokens(texts, types, vocabulary.strip_after_special)
    return BuiltTokenizer(_described(added, {**text_rules, "model": model}), raw_tokens, missing)


def _described(added: list[dict[str, Any]], parts: dict[str, Any]) -> str:
    return json.dumps({"version": "1.0", "added_tokens": added, **parts}, ensure_ascii=False)


def _corrected_types(
    vocabulary: Vocabulary, ids: dict[str, int], merges: Sequence[str]
) -> npt.NDArray[np.int32]:
    """Makes tokens like ``<|im_end|>`` control tokens where the file calls them normal, as some do.

    Not those that merging makes, too: ``</s>`` is a piece of HTML in Qwen's vocabulary.
    """
    types: npt.NDArray[np.int32] = vocabulary.types.copy()
    known = [text for text in CONTROL_TEXTS if text in ids]
    normal = {text for text in known if types[ids[text]] == TokenType.NORMAL}
    if normal:
        normal.difference_update(merge.replace(" ", "", 1) for merge in merges)
    for text in known:
        if text in normal or types[ids[text]] != TokenType.NORMAL:
            types[ids[text]] = TokenType.CONTROL
    return types


def _clean_texts(texts: list[str]) -> tuple[list[str], dict[int, bytes]]:
    """Gives tokens that Rust cannot hold as a string, and empty ones, a placeholder that no text matches."""
    try:
        "".join(texts).encode()
        if "" not in set(texts):
            return texts, {}
    except UnicodeEncodeError:
        pass
    except TypeError:
        raise FormatError("tokenizer.ggml.tokens holds something other than strings") from None
    raw_tokens: dict[int, bytes] = {}
    for index, text in enumerate(texts):
        try:
            if text.encode():
                continue
            raw_tokens[index] = b""
        except UnicodeEncodeError:
            raw_tokens[index] = text.encode("utf-8", "surrogateescape")
        texts[index] = f"[token {index}: {raw_tokens[index].hex()}]"
    return texts, raw_tokens


def _duplicate(texts: list[str]) -> str:
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        if first.setdefault(text, index) != index:
            return f"tokenizer.ggml.tokens: {text!r} is both token {first[text]} and token {index}"
    raise AssertionError("no duplicate")


def _added_tokens(texts: list[str], types: Any, strip: bool) -> list[dict[str, Any]]:
    """Tokens that are found in text as they stand: control tokens on request, user-defined ones always."""
    kinds = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    return [
        {
            "id": int(index),
            "content": texts[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": strip and texts[index] not in ("<unk>", "<s>", "<|endoftext|>"),
            "normalized": False,
            "special": bool(types[index] != TokenType.USER_DEFINED),
        }
        for index in np.flatnonzero(np.isin(types, kinds))
    ]


def _spm_text_rules(vocabulary: Vocabulary) -> dict[str, Any]:
    """SentencePiece: spaces become U+2581, one is put before every piece of text between special tokens."""
    steps: list[dict[str, Any]] = []
    if vocabulary.remove_extra_spaces:
        steps.append({"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "})
    if vocabulary.add_space_prefix:
        steps.append({"type": "Prepend", "prepend": "\u2581"})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if vocabulary.add_space_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


_LIBRARY_STEPS: dict[str, dict[str, Any]] = {
    DIGITS: {"type": "Digits", "individual_digits": True},
    NUMBERS: {"type": "Digits", "individual_digits": False},
    PUNCTUATION: {"type": "Punctuation", "behavior": "Contiguous"},
}


def _split(rule: str) -> dict[str, Any]:
    regex = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
    return _LIBRARY_STEPS.get(rule, regex)


def byte_level_text_rules(pre: PreTokenizer) -> dict[str, Any]:
    """Byte-level BPE: text is cut into words, their bytes are written as printable letters."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    before, behind = ([_split(rule) for rule in rules] for rules in (pre.splits, pre.letter_splits))
    return {
        "normalizer": {"type": pre.normalizer} if pre.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*before, byte_level, *behind]},
        "decoder": byte_level,
    }

"""What GGUF metadata says about a vocabulary, checked: tokens, types, scores, special ids and flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError, UnsupportedError
from torchless.text.pretokenizers import PreTokenizer, find_pre_tokenizer

__all__ = ["ROLE_KEYS", "TokenType", "Vocabulary", "named_templates", "read_vocabulary", "text_of"]

_PREFIX = "tokenizer.ggml."
_MAX_TOKENS = 1 << 24  # Fifty times the largest vocabulary there is.
_ROLES = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "padding",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
    "cls",
    "sep",
    "mask",
)
ROLE_KEYS = {"sep": "seperator"}
"""Roles that GGUF spells otherwise."""
_OLD_KEYS = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}


class TokenType(IntEnum):
    """Values of ``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A vocabulary as a GGUF file describes it. Sequences may be lazy views into the file.

    Attributes:
        model: ``"llama"`` (SentencePiece BPE), ``"gpt2"`` (byte-level BPE), ``"bert"`` (WordPiece), ``"t5"``
            (SentencePiece Unigram) or ``"gemma4"`` (pieces as SentencePiece has them, merged by rank).
        tokens: texts by id; bytes that are not UTF-8 stand as lone surrogates.
        types: `TokenType` by id.
        scores: by id (SentencePiece only, else empty): the higher, the earlier a merge; log probabilities in "t5".
        merges: ``"left right"`` in order of rank ("gpt2" and "gemma4", else empty).
        pre: how text is cut into words ("gpt2" only).
        special_ids: ids that the file names by role: ``{"bos": 1, "eos": 2, ...}``.
        more_end_ids: further ids that the file names as ends of a text.
        add_bos, add_eos: whether a prompt gets them by default.
        add_space_prefix: a space is put before the text ("llama" only).
        remove_extra_spaces: runs of spaces become one, none stay at the ends ("llama" only).
        strip_after_special: white space after a special token belongs to the token (Phi-3).
        pair_separator: ids between the two texts of a pair, for models that compare texts ("bert", "t5").
        charsmap: how characters are normalised, in SentencePiece's compiled form ("t5" only, else empty).
    """

    model: Literal["llama", "gpt2", "bert", "t5", "gemma4"]
    tokens: Sequence[str]
    types: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    merges: Sequence[str]
    pre: PreTokenizer | None
    special_ids: Mapping[str, int]
    more_end_ids: frozenset[int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    remove_extra_spaces: bool
    strip_after_special: bool
    pair_separator: tuple[int, ...] = ()
    charsmap: bytes = b""

    @property
    def is_byte_level(self) -> bool:
        """Whether tokens write their bytes as letters."""
        return self.model == "gpt2"


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Reads and checks the ``tokenizer.ggml.*`` keys.

    Raises:
        FormatError: a key is missing, has the wrong type or contradicts another.
        UnsupportedError: a tokenizer model or pre-tokenizer that torchless does not know.
    """
    model = text_of(metadata, "model")
    if model is None:
        raise FormatError(
            "tokenizer.ggml.model is missing: the file holds no tokenizer, so text cannot be read"
        )
    if model not in _DEFAULT_IDS:
        raise UnsupportedError(
            f"tokenizer.ggml.model is {model!r}; torchless knows 'llama' (SentencePiece), 'gpt2' (byte-level BPE), "
            f"'bert' (WordPiece), 't5' (Unigram) and 'gemma4'; load the original model's folder with its tokenizer.json"
            " instead"
        )
    spm, bpe, pieces = model in ("llama", "t5"), model in ("gpt2", "gemma4"), model == "bert"
    pre = find_pre_tokenizer(text_of(metadata, "pre")) if model == "gpt2" else None
    tokens = _sequence(metadata, "tokens", required=True)
    if not 0 < len(tokens) <= _MAX_TOKENS:
        raise FormatError(f"tokenizer.ggml.tokens has {len(tokens)} entries, expected 1 to {_MAX_TOKENS}")
    types = _numbers(metadata, "token_type", np.int32, len(tokens))
    scores = _numbers(metadata, "scores", np.float32, len(tokens)) if spm else np.empty(0, np.float32)
    if spm and (scores.size == 0 or not np.isfinite(scores).all()):
        found = "is missing" if scores.size == 0 else "holds a value that is not finite"
        raise FormatError(f"tokenizer.ggml.scores {found}, expected one finite number per token")
    special = _special_ids(metadata, len(tokens), _DEFAULT_IDS[model])
    if pieces:  # they begin with a token that is called by either name, and end with the separator
        special["bos"] = special.get("cls", special.get("bos", 101))
        special["eos"] = special.get("sep", special.get("eos", 102))
        special = {role: index for role, index in special.items() if index < len(tokens)}
    add_bos = _flag(metadata, "add_bos_token", pre.add_bos if pre else model != "t5")
    add_eos = _flag(metadata, "add_eos_token", not (bpe or model == "llama"))
    for name, wanted in (("bos", add_bos), ("eos", add_eos)):
        if wanted and f"{_PREFIX}add_{name}_token" in metadata and name not in special:
            raise FormatError(
                f"tokenizer.ggml.add_{name}_token is true but tokenizer.ggml.{name}_token_id is missing"
            )
    return Vocabulary(
        model=model,  # type: ignore[arg-type]  # Checked above.
        tokens=tokens,
        types=types if types.size else np.full(len(tokens), TokenType.NORMAL, np.int32),
        scores=scores,
        merges=_sequence(metadata, "merges", required=True) if bpe else (),
        pre=pre,
        special_ids=special,
        more_end_ids=_more_end_ids(metadata, len(tokens)),
        add_bos=add_bos and "bos" in special,
        add_eos=add_eos and "eos" in special,
        add_space_prefix=spm and _flag(metadata, "add_space_prefix", True),
        remove_extra_spaces=spm and _flag(metadata, "remove_extra_whitespaces", False),
        strip_after_special=spm and _is_phi3(metadata),
        pair_separator=_pair_separator(model, special),
        charsmap=_charsmap(metadata) if model == "t5" else b"",
    )


# Ids that mean what they mean where a file does not say otherwise, by tokenizer model.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {},
    "bert": {"unknown": 100, "sep": 102, "padding": 0, "mask": 103},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
    "gemma4": {"bos": 2, "eos": 1, "unknown": 3, "padding": 0},
}


def _pair_separator(model: str, special: Mapping[str, int]) -> tuple[int, ...]:
    if model == "bert":
        return (special["eos"],) if "eos" in special else ()
    both = [special[role] for role in ("eos", "sep") if role in special]
    return tuple(both) if model == "t5" else ()


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    values = _sequence(metadata, "precompiled_charsmap", required=False)
    try:
        array = np.asarray(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        array = np.full(1, -1)
    if array.ndim != 1 or len(array) > 1 << 24 or ((array < -128) | (array > 255)).any():
        raise FormatError(f"{_PREFIX}precompiled_charsmap holds something other than bytes")
    return (array & 255).astype(np.uint8).tobytes()


def named_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; the main one is ``"default"``."""
    prefix = "tokenizer.chat_template"
    templates: dict[str, str] = {}
    for key, value in metadata.items():
        if key == prefix or key.startswith(prefix + "."):
            if not isinstance(value, str):
                raise FormatError(f"{key} is {type(value).__name__}, expected a string")
            templates[key[len(prefix) + 1 :] or "default"] = value
    return templates


def text_of(metadata: Mapping[str, Any], name: str) -> str | None:
    """The string under ``tokenizer.ggml.<name>``, None where it is absent."""
    value = metadata.get(_PREFIX + name)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{_PREFIX}{name} is {type(value).__name__}, expected a string")
    return value


def _is_phi3(metadata: Mapping[str, Any]) -> bool:
    # The file has no field for this property of Phi-3's special tokens; llama.cpp goes by the name, too.
    name = metadata.get("general.name")
    return isinstance(name, str) and any(known in name.lower() for known in ("phi-3", "phi3"))


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(_PREFIX + name, default)
    if not isinstance(value, bool | np.bool_):
        raise FormatError(f"{_PREFIX}{name} is {value!r}, expected true or false")
    return bool(value)


def _sequence(metadata: Mapping[str, Any], name: str, required: bool) -> Sequence[Any]:
    value = metadata.get(_PREFIX + name)
    if value is None and not required:
        return ()
    if value is None:
        raise FormatError(f"{_PREFIX}{name} is missing: the vocabulary is incomplete")
    if isinstance(value, str | bytes) or not (hasattr(value, "__len__") and isinstance(value, Iterable)):
        raise FormatError(f"{_PREFIX}{name} is {type(value).__name__}, expected an array")
    return value  # type: ignore[return-value]


def _numbers(metadata: Mapping[str, Any], name: str, dtype: Any, count: int) -> npt.NDArray[Any]:
    values = _sequence(metadata, name, required=False)
    if len(values) == 0:
        return np.empty(0, dtype)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or len(array) < count:
        raise FormatError(
            f"{_PREFIX}{name} holds {len(values)} values, expected {count} numbers (one per token)"
        )
    return array[:count].astype(dtype)


def _special_ids(metadata: Mapping[str, Any], count: int, defaults: Mapping[str, int]) -> dict[str, int]:
    ids = {role: number for role, number in defaults.items() if number < count}
    for role in _ROLES:
        key = f"{_PREFIX}{ROLE_KEYS.get(role, role)}_token_id"
        if key not in metadata and role in _OLD_KEYS:
            key = f"{_PREFIX}{_OLD_KEYS[role]}_token_id"
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise FormatError(f"{key} is {value!r}, expected a token id")
        if 0 <= value < count:
            ids[role] = int(value)
        elif role in ("bos", "eos"):
            raise FormatError(f"{_PREFIX}{role}_token_id is {value}, but the vocabulary has {count} tokens")
        # Padding and the like are often written as -1, meaning none.
    return ids


def _more_end_ids(metadata: Mapping[str, Any], count: int) -> frozenset[int]:
    values = list(_sequence(metadata, "eos_token_ids", required=False))
    if not all(isinstance(value, int | np.integer) and 0 <= value < count for value in values):
        raise FormatError(f"{_PREFIX}eos_token_ids is {values!r}, expected ids below {count}")
    return frozenset(map(int, values))

"""The tokenizer of a Hugging Face folder as GGUF metadata.

Byte-level BPE becomes model "gpt2" with its pre-tokenizer by name, SentencePiece-like BPE becomes "llama" with
scores, WordPiece "bert" and Unigram "t5". What was made is compared with the folder's own tokenizer on texts that are
hard to cut; a tokenizer that GGUF cannot say is refused rather than written wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from torchless.conversion.tokenizer_encoders import unigram, word_pieces
from torchless.errors import FormatError, TorchlessError, UnsupportedError
from torchless.text.pieces import byte_level_bytes
from torchless.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer, find_pre_tokenizer
from torchless.text.tokenizer import Tokenizer, TokenizerSpec
from torchless.text.tokenizer_folder import metadata_from_sentencepiece, tokenizer_from_folder
from torchless.text.vocabulary import ROLE_KEYS, TokenType

__all__ = ["PROBES", "check_same_tokens", "tokenizer_metadata"]

_GGML = "tokenizer.ggml."

PROBES = (
    "Hello, world! It's the 1st of 2 345 678 days; we'll see, DON'T we?",
    "  two spaces,\ttabs\t\tand\n\n\nlines \r\n at the end  ",
    "def f(x):\n    return x**2 + 3.14159e-10  # comment\n\n\tif x != 0:\n\t\tpass",
    "na\u00efve caf\u00e9 \u00dcber stra\u00dfe \u0130stanbul e\u0301 \u00c5ngstr\u00f6m \ufb01ne",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u03b1\u03b2\u03b3 \u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \uc548\ub155\ud558\uc138\uc694",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u3053\u3093\u306b\u3061\u306f 123456\u2460\u00b2\u00bd",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2028 \u00a0 \u3000 ... --- ___ @@ {}[]()<>/\\|~`^",
    "https://example.org/a?b=c&d=%20 user@example.org #tag $9.99 C++ 50% x2y3z",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e17\u0e35\u0e48 // a/b/\n\n/ it's WE'VE",
    "\u30ab\u30bf\u30ab\u30ca 12\u0663\u0664 'quote' (x),(y)",
    "supercalifragilistic ANTIDISESTABLISHMENT iPhone McDonald a b c d e",
)
"""Texts on which tokenizers that differ in a rule give different ids."""


def tokenizer_metadata(folder: Path, num_rows: int, *, has_ranks: bool = False) -> dict[str, Any]:
    """``tokenizer.*`` metadata for a folder's tokenizer.

    Args:
        num_rows: rows of the embedding table; ids that no token has are filled up with unused ones.
        has_ranks: whether GGUF files of this family keep the ranks of merges where others have scores.

    Raises:
        FormatError: the tokenizer is missing or broken, or has more tokens than the model.
        UnsupportedError: GGUF cannot say what it does.
    """
    wanted = Tokenizer.from_folder(folder)
    library, spec = tokenizer_from_folder(folder)
    problem: TorchlessError | None = None
    for found in _candidates(folder, library, spec, has_ranks):
        complete = {**found, **_settings(spec, folder), **_infill(wanted)}
        _fill(complete, num_rows, folder)
        try:
            check_same_tokens(
                wanted, Tokenizer.from_metadata(complete), folder, _whole_tokens(library, complete)
            )
        except TorchlessError as error:
            problem = error
            continue
        return complete
    assert problem is not None
    raise problem


def check_same_tokens(wanted: Tokenizer, made: Tokenizer, what: Path, more_texts: Sequence[str] = ()) -> None:
    """Raises UnsupportedError naming a text that the two tokenizers cut differently."""
    texts = (*PROBES, *wanted.chat_templates.values(), *more_texts)
    for text in texts:
        for parse_special in (False, True):
            expected, found = (item.encode(text, parse_special=parse_special) for item in (wanted, made))
            if expected != found:
                raise UnsupportedError(
                    f"{what}: the tokenizer does something that the other format cannot say: {text[:40]!r} is "
                    f"{_shown(expected, found)} in the original and {_shown(found, expected)} after conversion"
                )


def _whole_tokens(library: Any, metadata: Mapping[str, Any]) -> list[str]:
    """The texts of all tokens, where one side takes a word that is a token as a whole and the other merges it.

    GGUF files cannot say which, but by the name of the pre-tokenizer. The ids differ where merges do not lead there.
    """
    if metadata[_GGML + "model"] != "gpt2":
        return []
    ignores = bool(json.loads(library.to_str())["model"].get("ignore_merges", False))
    if find_pre_tokenizer(metadata[_GGML + "pre"]).ignore_merges == ignores:
        return []
    texts = []
    for text in library.get_vocab(with_added_tokens=False):
        with suppress(UnicodeDecodeError):  # A part of a character is no word.
            texts.append(byte_level_bytes(text).decode())
    return texts


def _shown(ids: list[int], others: list[int]) -> str:
    """A few ids around the first difference."""
    at = next((i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), len(others))
    return f"[... {', '.join(map(str, ids[max(at - 1, 0) : at + 3]))} ...]"


def _candidates(folder: Path, library: Any, spec: TokenizerSpec, has_ranks: bool) -> list[dict[str, Any]]:
    """The vocabulary as metadata, in each way that could be right, the likeliest first."""
    if not (folder / "tokenizer.json").is_file():
        return [_from_model_file(folder)]
    state = json.loads(library.to_str())
    model = state["model"]
    if model.get("type") == "WordPiece":
        return [word_pieces(*_tokens(library))]
    if model.get("type") == "Unigram":
        return [unigram(*_tokens(library), state)]
    if model.get("type") != "BPE":
        raise UnsupportedError(
            f"{folder / 'tokenizer.json'}: the model is {model.get('type')!r}; torchless writes BPE, WordPiece and "
            f"Unigram into GGUF files"
        )
    if spec.kind == "byte-level":
        return [_byte_level(library, state, _find_words(library, model, folder))]
    found = [_sentencepiece_like(library, state)]
    if has_ranks:
        del found[0][_GGML + "pre"]
        return [{**found[0], _GGML + "model": "gemma4", _GGML + "merges": _merges(state)}]
    if (folder / "tokenizer.model").is_file():
        found.insert(0, _from_model_file(folder))
    return found


def _from_model_file(folder: Path) -> dict[str, Any]:
    return {_GGML + "pre": "default", **metadata_from_sentencepiece(folder)}


def _byte_level(library: Any, state: Mapping[str, Any], words: PreTokenizer) -> dict[str, Any]:
    tokens, types = _tokens(library)
    return {
        _GGML + "model": "gpt2",
        _GGML + "pre": words.names[0],
        _GGML + "tokens": tokens,
        _GGML + "token_type": types,
        _GGML + "merges": _merges(state),
    }


def _merges(state: Mapping[str, Any]) -> list[str]:
    return [item if isinstance(item, str) else " ".join(item) for item in state["model"]["merges"]]


def _sentencepiece_like(library: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Scores that order the merges as the file does: the earlier the first merge that makes a token, the better."""
    tokens, types = _tokens(library)
    ranks: dict[str, int] = {}
    for rank, item in enumerate(state["model"]["merges"]):
        text = item.replace(" ", "", 1) if isinstance(item, str) else "".join(item)
        ranks.setdefault(text, rank)
    unknown = state["model"].get("unk_token")
    for index, text in enumerate(tokens):
        if text == unknown:
            types[index] = int(TokenType.UNKNOWN)
        elif types[index] == TokenType.NORMAL and _is_byte(text):
            types[index] = int(TokenType.BYTE)
    scores = [float(-ranks.get(text, len(ranks) + 1)) for text in tokens]
    for index, kind in enumerate(types):
        if kind != TokenType.NORMAL:
            scores[index] = 0.0
    return {
        _GGML + "model": "llama",
        _GGML + "pre": "default",
        _GGML + "tokens": tokens,
        _GGML + "scores": np.array(scores, np.float32),
        _GGML + "token_type": types,
        _GGML + "add_space_prefix": _adds_space(state),
        _GGML + "remove_extra_whitespaces": _joins_spaces(library),
    }


def _joins_spaces(library: Any) -> bool:
    """Whether runs of spaces become one."""
    if library.normalizer is None:
        return False
    text = library.normalizer.normalize_str("a   b").replace("\u2581", " ")
    return "  " not in text


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _adds_space(state: Mapping[str, Any]) -> bool:
    def found(step: Any) -> bool:
        if not isinstance(step, dict):
            return False
        inner = [*step.get("normalizers", ()), *step.get("pretokenizers", ())]
        metaspace = step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        return step.get("type") == "Prepend" or metaspace or any(map(found, inner))

    return found(state.get("normalizer")) or found(state.get("pre_tokenizer"))


def _tokens(library: Any) -> tuple[list[str], list[int]]:
    """Texts and types by id; ids between that have no token are unused."""
    vocabulary = library.get_vocab(with_added_tokens=True)
    count = 1 + max(vocabulary.values())
    tokens = [f"[PAD{index}]" for index in range(count)]
    types = [int(TokenType.UNUSED)] * count
    for text, index in vocabulary.items():
        tokens[index], types[index] = text, int(TokenType.NORMAL)
    for index, token in library.get_added_tokens_decoder().items():
        tokens[index] = token.content
        types[index] = int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    return tokens, types


def _find_words(library: Any, model: Mapping[str, Any], folder: Path) -> PreTokenizer:
    """The named pre-tokenizer that cuts as the folder's does: found by what it does, not by how it is written."""
    from tokenizers import Tokenizer as LibraryTokenizer

    from torchless.text.tokenizer_build import byte_level_text_rules

    matches = []
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    for entry in PRE_TOKENIZERS:
        description = {"version": "1.0", "added_tokens": [], **byte_level_text_rules(entry), "model": empty}
        named = LibraryTokenizer.from_str(json.dumps(description))
        if all(_words(named, text) == _words(library, text) for text in PROBES):
            matches.append(entry)
    ignores = bool(model.get("ignore_merges", False))
    matches.sort(key=lambda entry: entry.ignore_merges != ignores)  # Stable: the likelier name stays first.
    if not matches:
        known = ", ".join(entry.names[0] for entry in PRE_TOKENIZERS)
        raise UnsupportedError(
            f"{folder / 'tokenizer.json'}: it cuts text into words in a way that has no name in GGUF files "
            f"as far as torchless knows (known: {known})"
        )
    return matches[0]


def _words(library: Any, text: str) -> list[str]:
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    return [word for word, _ in library.pre_tokenizer.pre_tokenize_str(text)]


def _settings(spec: TokenizerSpec, folder: Path) -> dict[str, Any]:
    """Special tokens, what goes around a text, and chat templates."""
    found: dict[str, Any] = {}
    for role, index in spec.special_ids.items():
        found[f"{_GGML}{ROLE_KEYS.get(role, role)}_token_id"] = index
    for role, ids in (("bos", spec.prefix_ids), ("eos", spec.suffix_ids)):
        if ids not in ((), (spec.special_ids.get(role),)):
            raise UnsupportedError(
                f"{folder}: the tokenizer puts the ids {list(ids)} around a text; GGUF files can say only "
                f"the {role} token"
            )
        found[f"{_GGML}add_{role}_token"] = bool(ids)
    if spec.end_ids:
        found[_GGML + "eos_token_ids"] = sorted(spec.end_ids)
    for name, text in spec.templates.items():
        found[f"tokenizer.chat_template.{name}".removesuffix(".default")] = text
    others = [name for name in spec.templates if name != "default"]
    if others:
        found["tokenizer.chat_templates"] = others
    return found


def _infill(tokenizer: Tokenizer) -> dict[str, int]:
    """The tokens around a gap, which other programs may not know by their texts."""
    ids = {} if tokenizer.infill is None else tokenizer.infill.ids
    return {f"{_GGML}{role}_token_id": index for role, index in ids.items()}


def _fill(metadata: dict[str, Any], num_rows: int, folder: Path) -> None:
    """Unused tokens up to the size of the embedding table, as llama.cpp needs them."""
    tokens, types = metadata[_GGML + "tokens"], metadata[_GGML + "token_type"]
    missing = num_rows - len(tokens)
    if missing < 0:
        raise FormatError(f"{folder}: the tokenizer has {len(tokens)} tokens, the model only {num_rows} rows")
    tokens.extend(f"[PAD{index}]" for index in range(len(tokens), num_rows))
    types.extend([int(TokenType.UNUSED)] * missing)
    if missing and _GGML + "scores" in metadata:
        scores = np.asarray(metadata[_GGML + "scores"], np.float32)
        metadata[_GGML + "scores"] = np.concatenate([scores, np.full(missing, -1e4, np.float32)])

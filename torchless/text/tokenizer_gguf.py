"""Makes tokenizers from GGUF metadata, by way of the cache on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from torchless.errors import FormatError
from torchless.text import tokenizer_cache
from torchless.text.end_tokens import find_end_ids
from torchless.text.tokenizer import TokenizerSpec
from torchless.text.tokenizer_build import BuiltTokenizer, build_tokenizer
from torchless.text.vocabulary import Vocabulary, named_templates, read_vocabulary

__all__ = ["KINDS", "load_library_tokenizer", "tokenizer_from_metadata"]

# Below this many tokens and merges building takes less time than the cache is worth.
_MIN_CACHED_ENTRIES = 20_000
# How tokens write their bytes, by ``tokenizer.ggml.model``.
KINDS: dict[str, Literal["byte-level", "sentencepiece", "wordpiece"]] = {
    "llama": "sentencepiece",
    "gpt2": "byte-level",
    "bert": "wordpiece",
    "t5": "sentencepiece",
    "gemma4": "sentencepiece",
}
# Goes into the key of the cache: raise it with every change of what is built.
_BUILD_VERSION = "3"


def tokenizer_from_metadata(metadata: Mapping[str, Any], cache_key: str | None) -> tuple[Any, TokenizerSpec]:
    """The library's tokenizer and our description of it; see `Tokenizer.from_metadata`."""
    vocabulary = read_vocabulary(metadata)
    built = _build_or_load(vocabulary, cache_key)
    library_tokenizer = load_library_tokenizer(built.json, "the tokenizer in the file's metadata")
    special = vocabulary.special_ids
    control = {token.content: index for index, token in _control_tokens(library_tokenizer)}
    end_ids = find_end_ids(special, control.get)
    spec = TokenizerSpec(
        kind=KINDS[vocabulary.model],
        pre=vocabulary.pre.names[0] if vocabulary.pre else None,
        num_tokens=len(vocabulary.tokens),
        special_ids=special,
        end_ids=end_ids | vocabulary.more_end_ids,
        prefix_ids=(special["bos"],) if vocabulary.add_bos else (),
        suffix_ids=(special["eos"],) if vocabulary.add_eos else (),
        pair_ids=vocabulary.pair_separator,
        strip_leading_space=vocabulary.add_space_prefix or vocabulary.model == "bert",
        templates=named_templates(metadata),
        raw_tokens=built.raw_tokens,
        missing_bytes=built.missing_bytes,
    )
    return library_tokenizer, spec


def _control_tokens(library_tokenizer: Any) -> list[tuple[int, Any]]:
    added = library_tokenizer.get_added_tokens_decoder()
    return [(index, token) for index, token in added.items() if token.special]


def load_library_tokenizer(description: str, what: str) -> Any:
    """A `tokenizers.Tokenizer` from its JSON.

    Raises:
        FormatError: the library refuses it.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(description)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # A panic of the Rust library is not an Exception.
        raise FormatError(f"{what} is not valid: {error}") from None


def _build_or_load(vocabulary: Vocabulary, cache_key: str | None) -> BuiltTokenizer:
    if len(vocabulary.tokens) + len(vocabulary.merges) < _MIN_CACHED_ENTRIES:
        return build_tokenizer(vocabulary)
    key = tokenizer_cache.hash_key(_identity(vocabulary, cache_key))
    built = tokenizer_cache.load(key)
    if built is None:
        built = build_tokenizer(vocabulary)
        tokenizer_cache.store(key, built)
    return built


def _identity(vocabulary: Vocabulary, cache_key: str | None) -> Iterator[bytes]:
    """Everything that `build_tokenizer` reads."""
    rules = (
        _BUILD_VERSION,
        vocabulary.model,
        vocabulary.pre,
        vocabulary.special_ids.get("unknown"),
        vocabulary.add_space_prefix,
        vocabulary.remove_extra_spaces,
        vocabulary.strip_after_special,
        vocabulary.charsmap,
        cache_key,
    )
    yield repr(rules).encode("utf-8", "backslashreplace")
    yield len(vocabulary.tokens).to_bytes(8, "little")
    if cache_key is not None:
        return
    yield vocabulary.types.tobytes()
    yield vocabulary.scores.tobytes()
    yield from _string_bytes(vocabulary.tokens)
    yield from _string_bytes(vocabulary.merges)


def _string_bytes(strings: Sequence[str]) -> Iterator[bytes]:
    if hasattr(strings, "tobytes"):  # An array in a GGUF file: its bytes as they stand there.
        yield strings.tobytes()
        return
    try:
        texts = list(strings)
        yield np.fromiter(map(len, texts), np.int64, len(texts)).tobytes()
        yield "".join(texts).encode("utf-8", "surrogateescape")
    except (TypeError, UnicodeEncodeError):
        raise FormatError("tokenizer.ggml.tokens or .merges holds something other than strings") from None

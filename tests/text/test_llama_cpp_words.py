"""Each pre-tokenizer by its name in GGUF files: the ids are llama.cpp's, but where llama.cpp is known to simplify."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_cpp_vocabulary import LlamaCppVocabulary
from tokenizer_families import FAMILIES, SPECIAL, make_library_tokenizer, random_text, write_folder
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers, trainers

from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource

# Falcon has a test of its own: llama.cpp leaves out a step that a real vocabulary makes without effect.
NAMES = [(name, entry) for entry in PRE_TOKENIZERS for name in entry.names if name != "falcon"]
CASED = {"tekken", "gpt-4o", "llama4", "kanana2"}


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Any]:
    """Merges that were learned on whole texts: wherever a rule does not cut, some merge goes across."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    draw = random.Random(11)
    trainer = trainers.BpeTrainer(
        vocab_size=5000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    names = re.compile("|".join(map(re.escape, SPECIAL)))
    library.train_from_iterator([names.sub("", random_text(draw)) for _ in range(6000)], trainer)
    model = json.loads(library.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*tokens, *SPECIAL],
        "tokenizer.ggml.token_type": [*[1] * len(tokens), *[3] * len(SPECIAL)],
        "tokenizer.ggml.merges": [
            item if isinstance(item, str) else " ".join(item) for item in model["merges"]
        ],
    }


def comparable(name: str, entry: PreTokenizer, text: str) -> str:
    """The text without what llama.cpp simplifies on purpose."""
    text = text.replace("\x00", "")
    if entry.normalizer:  # llama.cpp normalises nothing
        text = unicodedata.normalize(entry.normalizer, text)
    if name in CASED:  # there it takes marks for punctuation, and case from ASCII letters alone
        text = "".join(
            c for c in text if unicodedata.category(c)[0] != "M" and (c.isascii() or not is_cased(c))
        )
    if (
        name == "deepseek-llm"
    ):  # there all spaces beyond ASCII are one, so that U+3000 is no punctuation; see below
        text = "".join(
            c for c in text if (c.isascii() or not c.isspace()) and unicodedata.category(c)[0] != "N"
        )
    return text


def is_cased(character: str) -> bool:
    return unicodedata.category(character) in ("Lu", "Ll", "Lt")


def difference(name: str, entry: PreTokenizer, metadata: dict[str, Any], folder: Path, num_texts: int) -> Any:
    ours = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.pre": name})
    draw = random.Random(name)
    with LlamaCppVocabulary(folder / "vocabulary.gguf", {**metadata, "tokenizer.ggml.pre": name}) as theirs:
        for _ in range(num_texts):
            text = comparable(name, entry, random_text(draw))
            for parse_special in (False, True):
                found = ours.encode(text, add_special_tokens=False, parse_special=parse_special)
                wanted = theirs.encode(text, parse_special=parse_special)
                if found != wanted:
                    return text, wanted, found
    return None


@pytest.mark.parametrize(("name", "entry"), NAMES, ids=[name for name, _ in NAMES])
def test_words_are_those_of_llama_cpp(
    name: str, entry: PreTokenizer, vocabulary: dict[str, Any], tmp_path: Path
) -> None:
    num_texts = 150 if name == entry.names[0] else 40  # another name of the same rule
    assert difference(name, entry, vocabulary, tmp_path, num_texts) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "entry"), NAMES, ids=[name for name, _ in NAMES])
def test_words_of_many_texts_are_those_of_llama_cpp(
    name: str, entry: PreTokenizer, vocabulary: dict[str, Any], tmp_path: Path
) -> None:
    assert difference(name, entry, vocabulary, tmp_path, 20_000) is None


@pytest.mark.parametrize("name", ["falcon", "deepseek-llm"])
def test_no_merge_of_a_real_kind_goes_across_what_llama_cpp_does_not_cut(name: str, tmp_path: Path) -> None:
    """Digits, which llama.cpp leaves together."""
    library = make_library_tokenizer(name)
    write_folder(tmp_path, library)
    metadata = tokenizer_metadata(tmp_path, library.get_vocab_size())
    ours = Tokenizer.from_metadata(metadata)
    draw = random.Random(3)
    with LlamaCppVocabulary(tmp_path / "vocabulary.gguf", metadata) as theirs:
        for _ in range(300):
            text = re.sub(r"[^\S\x00-\x7f]|\x00", "", random_text(draw)) + "x12 345"
            assert ours.encode(text, add_special_tokens=False) == theirs.encode(text), text


@pytest.mark.parametrize("name", ["deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_random_texts_get_llama_cpp_s_ids_from_real_vocabularies(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data(f"vocab/ggml-vocab-{name}.gguf")
    with GgufSource(path) as source:
        ours = Tokenizer.from_metadata(source.metadata)
    draw = random.Random(name)
    with LlamaCppVocabulary(path) as theirs:
        for _ in range(100):
            text = random_text(draw).replace("\x00", "")
            text = unicodedata.normalize("NFC", text) if name == "qwen2" else text
            for parse_special in (False, True):
                found = ours.encode(text, add_special_tokens=False, parse_special=parse_special)
                assert found == theirs.encode(text, parse_special=parse_special), text


def test_every_family_of_the_fuzz_has_a_name_here() -> None:
    words = {name for name, family in FAMILIES.items() if not family.has_pieces}
    assert words - {"falcon"} <= {name for name, _ in NAMES}

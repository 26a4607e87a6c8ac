"""Each family's tokenizer, from its folder and from the GGUF metadata made of it, against the `tokenizers` library."""

from __future__ import annotations

import random

import pytest
from tokenizer_families import (
    FAMILIES,
    SPECIAL,
    first_difference,
    make_library_tokenizer,
    random_text,
    write_folder,
)
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.errors import TokenizerError, UnsupportedError
from torchless.text.pretokenizers import PRE_TOKENIZERS, find_pre_tokenizer
from torchless.text.tokenizer import Tokenizer


def check(name, tmp_path, num_texts, seed):
    library = make_library_tokenizer(name)
    write_folder(tmp_path, library)
    has_ranks = FAMILIES[name].has_ranks
    metadata = tokenizer_metadata(tmp_path, library.get_vocab_size(), has_ranks=has_ranks)
    if FAMILIES[name].has_pieces:
        assert metadata["tokenizer.ggml.model"] == name
    else:
        assert find_pre_tokenizer(metadata["tokenizer.ggml.pre"]) == find_pre_tokenizer(name)
    draw = random.Random(seed)
    texts = [random_text(draw) for _ in range(num_texts)]
    ours = [Tokenizer.from_folder(tmp_path), Tokenizer.from_metadata(metadata)]
    difference = first_difference(library, ours, texts)
    assert difference is None, difference
    draw = random.Random(seed + 1)
    for text in texts[:50]:
        place = draw.randrange(len(text) + 1)
        for tokenizer in ours:
            with pytest.raises(TokenizerError, match=rf"lone surrogate '\\ud83d' at position {place},"):
                tokenizer.encode(f"{text[:place]}\ud83d{text[place:]}")
        shown = ours[1].decode(ours[1].encode(text))
        wanted = library.normalizer.normalize_str(text) if library.normalizer else text
        if FAMILIES[name].has_pieces:
            wanted = wanted.replace("\u2581", " ").removeprefix(" " if FAMILIES[name].prefix else "")
        assert shown == wanted


def test_every_pre_tokenizer_is_compared():
    names = [name for name, family in FAMILIES.items() if not family.has_pieces]
    assert {find_pre_tokenizer(name).names for name in names} == {entry.names for entry in PRE_TOKENIZERS}


@pytest.mark.parametrize("name", FAMILIES)
def test_random_texts_get_the_ids_of_the_library(name, tmp_path):
    check(name, tmp_path, 200, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_hundred_thousand_random_texts_get_the_ids_of_the_library(name, tmp_path):
    check(name, tmp_path, 100_000, seed=2)


@pytest.mark.parametrize("is_reachable", [True, False])
def test_words_taken_whole_must_be_what_merges_make(is_reachable, tmp_path):
    """Llama 4's file takes words whole, its name in GGUF files says that merges do it: the same for its tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c")] if is_reachable else [("b", "c"), ("a", "b"), ("ab", "c")]
    tokens = [*alphabet, *(left + right for left, right in merges)]
    library = LibraryTokenizer(
        models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=merges, ignore_merges=True)
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(list(FAMILIES["gpt-4o"].steps))
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(SPECIAL[0], special=True, normalized=False)])
    write_folder(tmp_path, library)
    if is_reachable:
        assert tokenizer_metadata(tmp_path, 300)["tokenizer.ggml.pre"] == "gpt-4o"
    else:
        with pytest.raises(UnsupportedError, match="cannot say: 'abc' is"):
            tokenizer_metadata(tmp_path, 300)

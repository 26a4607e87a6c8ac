"""Each family's tokenizer, from its folder and from the GGUF metadata made of it, against the `tokenizers` library."""

from __future__ import annotations

import random

import pytest
from tokenizer_families import FAMILIES, first_difference, make_library_tokenizer, random_text, write_folder

from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.text.pretokenizers import find_pre_tokenizer
from torchless.text.tokenizer import Tokenizer


def check(name, tmp_path, num_texts, seed):
    library = make_library_tokenizer(name)
    write_folder(tmp_path, library)
    metadata = tokenizer_metadata(tmp_path, library.get_vocab_size())
    assert find_pre_tokenizer(metadata["tokenizer.ggml.pre"]) == find_pre_tokenizer(name)
    draw = random.Random(seed)
    texts = [random_text(draw) for _ in range(num_texts)]
    ours = [Tokenizer.from_folder(tmp_path), Tokenizer.from_metadata(metadata)]
    difference = first_difference(library, ours, texts)
    assert difference is None, difference
    for text in texts[:50]:
        shown = ours[1].decode(ours[1].encode(text))
        assert shown == (library.normalizer.normalize_str(text) if library.normalizer else text)


@pytest.mark.parametrize("name", FAMILIES)
def test_random_texts_get_the_ids_of_the_library(name, tmp_path):
    check(name, tmp_path, 200, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_hundred_thousand_random_texts_get_the_ids_of_the_library(name, tmp_path):
    check(name, tmp_path, 100_000, seed=2)

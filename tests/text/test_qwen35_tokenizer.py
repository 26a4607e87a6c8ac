"""Qwen3.5's pre-tokenizer against the tokenizer of Hugging Face transformers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.text.tokenizer import Tokenizer

PIECES = [
    *(
        "don't",
        "WE'LL",
        "naïve",
        "e\u0301te\u0301",
        "na\u0308h",
        "हिन्दी",
        "עִבְרִית",
        "ภาษาไทย",
        "汉字",
        "한국어",
    ),
    *(
        "123",
        "٣٤",
        " ",
        "  ",
        "\n",
        "\r\n\r\n",
        "\t",
        "...",
        "\u0301",
        "\u20dd",
        "🙂",
        "👩\u200d💻",
        "=>\n",
        "x²",
    ),
]


def test_ids_are_those_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers.models.qwen3_5.tokenization_qwen3_5")
    from tokenizers import pre_tokenizers, trainers

    theirs: Any = library.Qwen3_5Tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    generator = random.Random(7)
    texts = ["".join(generator.choices(PIECES, k=12)) for _ in range(600)]
    theirs.backend_tokenizer.train_from_iterator(texts, trainer)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    metadata = tokenizer_metadata(tmp_path, 800)
    assert metadata["tokenizer.ggml.pre"] == "qwen35"
    ours = Tokenizer.from_metadata(metadata)
    for text in texts:
        wanted = theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False) == wanted, repr(text)

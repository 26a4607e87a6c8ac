"""Trains the byte-level BPE of the built-in model (GPT-2 pre-tokenizer, all 256 bytes) on generated text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from chat import SPECIAL_TOKENS
from grammar import documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 1024
TRAINING_SEED, NUM_DOCUMENTS = 1_000_003, 20_000


def train(path: Path) -> Tokenizer:
    """Train on `NUM_DOCUMENTS` documents and write a tokenizer.json; ids 0 to 3 are the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (_plain(text) for text in islice(documents(TRAINING_SEED), NUM_DOCUMENTS))
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"vocabulary has {tokenizer.get_vocab_size()} entries, expected {VOCAB_SIZE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def load_or_train(path: Path) -> Tokenizer:
    """The tokenizer at `path`; trained first if there is none."""
    return Tokenizer.from_file(str(path)) if path.exists() else train(path)


def _plain(text: str) -> str:
    """`text` without its special tokens, so that no merge is learned across or inside them."""
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "\n")
    return text

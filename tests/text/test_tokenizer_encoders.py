"""WordPiece and Unigram: from a folder, from GGUF metadata, and back, against the `tokenizers` library."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizer_families import first_difference, random_text
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from torchless.conversion.tokenizer_files import write_tokenizer_files
from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.errors import FormatError, UnsupportedError
from torchless.text.sentencepiece_model import _fields
from torchless.text.tokenizer import Tokenizer

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLMR_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def plain_text(draw: random.Random) -> str:
    """Without U+2581, with which both of GGUF's ways of writing begin a word: no vocabulary of BERT has it."""
    return random_text(draw).replace("\u2581", "")


def corpus(seed: int) -> list[str]:
    draw = random.Random(seed)
    words = ["".join(draw.choices("etaoinshrdluETA1", k=draw.randrange(2, 9))) for _ in range(300)]
    return [" ".join(draw.choices(words, k=12)) + " " + plain_text(draw) for _ in range(1200)]


def word_piece(*, lowercase: bool) -> LibraryTokenizer:
    """As BERT publishes it."""
    library = LibraryTokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=BERT_SPECIAL, show_progress=False)
    library.train_from_iterator(corpus(1), trainer)
    ids = [(text, library.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    library.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids
    )
    return library


def unigram() -> LibraryTokenizer:
    """As XLM-RoBERTa publishes it: the pieces of a SentencePiece model behind four special tokens."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the sentencepiece library is not installed")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.replace("\n", " ") for text in corpus(2)]),
        model_writer=model,
        model_type="unigram",
        vocab_size=5000,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = Path("trained.model")
    fields = list(_fields(path, model.getvalue(), "the file"))
    pieces = [dict(_fields(path, value, "piece")) for number, value in fields if number == 1]  # type: ignore[arg-type]
    normalizer = next(dict(_fields(path, value, "rules")) for number, value in fields if number == 3)  # type: ignore[arg-type]
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary: list[Any] = [[text, 0.0] for text in XLMR_SPECIAL]
    vocabulary += [[piece[1].decode(), processor.get_score(i)] for i, piece in enumerate(pieces) if i >= 3]
    vocabulary.append(["<mask>", 0.0])
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    charsmap = base64.b64encode(normalizer[2]).decode()
    description = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]},
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": False},
    }
    library = LibraryTokenizer.from_str(json.dumps(description))
    library.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in (*XLMR_SPECIAL, "<mask>")]
    )
    template = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
    library.post_processor = processors.TemplateProcessing(*template, [("<s>", 0), ("</s>", 2)])
    return library


def write(folder: Path, library: LibraryTokenizer) -> Path:
    library.save(str(folder / "tokenizer.json"))
    bert = library.token_to_id("[CLS]") is not None
    names = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    others = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
    }
    config = names if bert else {**others, "cls_token": "<s>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


KINDS = {
    "wordpiece": lambda: word_piece(lowercase=True),
    "wordpiece-cased": lambda: word_piece(lowercase=False),
    "unigram": unigram,
}


def check(kind: str, folder: Path, num_texts: int, seed: int) -> None:
    library = KINDS[kind]()
    write(folder, library)
    metadata = tokenizer_metadata(folder, library.get_vocab_size())
    assert metadata["tokenizer.ggml.model"] == ("t5" if kind == "unigram" else "bert")
    draw = random.Random(seed)
    back = folder / "back"
    back.mkdir()
    write_tokenizer_files(back, metadata, 512)
    ours = [Tokenizer.from_folder(folder), Tokenizer.from_metadata(metadata), Tokenizer.from_folder(back)]
    difference = first_difference(library, ours, [plain_text(draw) for _ in range(num_texts)])
    assert difference is None, difference
    library.encode_special_tokens = True
    pair = library.encode("One text", "and another").ids
    for tokenizer in ours:
        prefix, between, suffix = tokenizer.frame
        texts = [tokenizer.encode(text, add_special_tokens=False) for text in ("One text", "and another")]
        assert [*prefix, *texts[0], *between, *texts[1], *suffix] == pair
        assert tokenizer.encode("One text") == library.encode("One text").ids


@pytest.mark.parametrize("kind", KINDS)
def test_random_texts_get_the_ids_of_the_library(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, 300, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_random_texts_get_the_ids_of_the_library(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, 100_000, seed=4)


def test_pieces_are_written_as_gguf_files_have_them(tmp_path: Path) -> None:
    tokens = tokenizer_metadata(write(tmp_path, word_piece(lowercase=True)), 6000)["tokenizer.ggml.tokens"]
    assert tokens[: len(BERT_SPECIAL)] == BERT_SPECIAL
    assert "\u2581e" in tokens and "e" in tokens and not any(text.startswith("##") for text in tokens)


def test_decoding_writes_words_apart_and_their_parts_together(tmp_path: Path) -> None:
    library = word_piece(lowercase=True)
    tokenizer = Tokenizer.from_metadata(
        tokenizer_metadata(write(tmp_path, library), library.get_vocab_size())
    )
    assert tokenizer.decode(tokenizer.encode("Aeta  lot, net")) == "aeta lot , net"


def test_a_normaliser_that_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    library = word_piece(lowercase=True)
    library.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    with pytest.raises(UnsupportedError, match="cannot say"):
        tokenizer_metadata(write(tmp_path, library), library.get_vocab_size())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown_token_id": 77, "tokens": ["\u2581a", "b"]}, "unknown_token_id is missing or outside"),
        ({"tokens": ["\u2581a", "##", "\u2581a"]}, "both token 0 and token 2"),
    ],
)
def test_a_broken_vocabulary_of_pieces_is_refused(change: dict[str, Any], message: str) -> None:
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": BERT_SPECIAL,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(FormatError, match=message):
        Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize("charsmap", ["text", [1, 2, 300], [[1]]])
def test_a_broken_character_map_is_refused(charsmap: Any) -> None:
    tokens = ["<pad>", "</s>", "<unk>", "\u2581a"]
    metadata = {"model": "t5", "tokens": tokens, "scores": [0.0] * 4, "precompiled_charsmap": charsmap}
    with pytest.raises(FormatError, match="precompiled_charsmap"):
        Tokenizer.from_metadata({f"tokenizer.ggml.{key}": value for key, value in metadata.items()})

"""Texts with a gap: which tokens stand around it, in which order, and where its text ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_cpp_vocabulary import LlamaCppVocabulary
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from tokenizers import (
    Tokenizer as LibraryTokenizer,
)
from vocabularies import bpe_metadata, spm_metadata

from torchless.conversion.tokenizer_files import write_tokenizer_files
from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.errors import InvalidRequestError, TokenizerError, UnsupportedError
from torchless.text.gap_tokens import GAP_MARKS
from torchless.text.tokenizer import Tokenizer

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1
GAPS = [
    ("def f(x):\n", "\n    return x\n"),
    ("def f(x):", "return x"),
    ("x = ", " + 1"),
    ("", "the end"),
    ("the beginning ", ""),
    ("  ", "  "),
    ("<fim_suffix>", "<|fim_middle|> \u2581<MID>"),
]
CODE_LLAMA = ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "\u2581<EOT>")


def texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.id_to_token(index) for index in ids]


# -- byte-level vocabularies: the marks are part of a text that the library reads ----------------------------


@pytest.mark.parametrize("marks", [row for row in GAP_MARKS if row.middle], ids=lambda row: row.prefix)
@pytest.mark.parametrize("is_special", [True, False])
def test_ids_are_those_of_the_text_that_the_authors_publish(
    marks: Any, is_special: bool, tmp_path: Path
) -> None:
    library = LibraryTokenizer(models.BPE(vocab=_alphabet(), merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    names = [marks.prefix, marks.suffix, marks.middle, "<|endoftext|>"]
    library.add_tokens([AddedToken(name, special=is_special, normalized=False) for name in names])
    library.save(str(tmp_path / "tokenizer.json"))
    folder = Tokenizer.from_folder(tmp_path)
    metadata = tokenizer_metadata(tmp_path, library.get_vocab_size())
    for role, name in (("pre", marks.prefix), ("suf", marks.suffix), ("mid", marks.middle)):
        assert metadata[f"tokenizer.ggml.fim_{role}_token_id"] == library.token_to_id(name)
    for prefix, suffix in GAPS[:-1]:
        ordered = {
            "psm": marks.prefix + prefix + marks.suffix + suffix + marks.middle,
            "spm": marks.suffix + suffix + marks.prefix + prefix + marks.middle,
            "spm2": marks.prefix + marks.suffix + suffix + marks.middle + prefix,
        }
        for tokenizer in (folder, Tokenizer.from_metadata(metadata)):
            for order, text in ordered.items():
                wanted = library.encode(text, add_special_tokens=False).ids
                assert tokenizer.encode_infill(prefix, suffix, order=order) == wanted
            assert tokenizer.infill is not None
            own = library.encode(ordered[tokenizer.infill.order], add_special_tokens=False).ids
            assert tokenizer.encode_infill(prefix, suffix) == own


def _alphabet() -> dict[str, int]:
    return {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def test_texts_that_look_like_marks_are_text() -> None:
    names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=dict.fromkeys(names, CONTROL)))
    ids = tokenizer.encode_infill("<|fim_middle|>", "<|fim_suffix|>")
    assert [ids.count(tokenizer.token_to_id(name)) for name in names] == [1, 1, 1]
    ids = tokenizer.encode_infill("<|fim_middle|>", "", parse_special=True)
    assert ids.count(tokenizer.token_to_id("<|fim_middle|>")) == 2


# -- SentencePiece ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def code_llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small vocabulary of Code Llama's kind, trained by SentencePiece: its processor and a folder."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("code-llama")
    lines = [text for gap in GAPS for part in gap for text in part.split("\n") if text.strip()] * 3
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        control_symbols=",".join(CODE_LLAMA),
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    return sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")), folder


@pytest.mark.parametrize("form", ["tokenizer.model", "gguf", "tokenizer.json"])
def test_code_llama_is_asked_as_its_authors_ask_it(
    code_llama: tuple[Any, Path], form: str, tmp_path: Path
) -> None:
    """Their recipe: the suffix is encoded behind a character, whose two pieces are then left out."""
    processor, folder = code_llama
    metadata = tokenizer_metadata(folder, processor.vocab_size())
    if form == "tokenizer.json":
        write_tokenizer_files(tmp_path, metadata, 100)
        tokenizer = Tokenizer.from_folder(tmp_path)
    else:
        tokenizer = Tokenizer.from_metadata(metadata) if form == "gguf" else Tokenizer.from_folder(folder)
    assert tokenizer.infill is not None
    pre, suf, mid, eot = (processor.piece_to_id(text) for text in CODE_LLAMA)
    num_anchor_ids = len(processor.encode("\u263a"))
    for prefix, suffix in GAPS:
        before, behind = processor.encode(prefix), processor.encode("\u263a" + suffix)[num_anchor_ids:]
        bos = processor.bos_id()
        assert tokenizer.encode_infill(prefix, suffix) == [bos, pre, *before, suf, *behind, mid]
        assert tokenizer.encode_infill(prefix, suffix, order="spm2") == [bos, pre, suf, *behind, mid, *before]
    assert tokenizer.infill.end_ids == {pre, suf, mid, eot}
    assert eot in tokenizer.eos_ids


def test_transformers_asks_code_llama_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    merges = [
        ("\u2581", "d"),
        ("\u2581d", "e"),
        ("r", "e"),
        ("re", "t"),
        ("\u2581", "ret"),
        ("\u2581", "\u2581"),
    ]
    letters = sorted({letter for text in ("def f(x):+=return", "\u2581") for letter in text})
    entries = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    entries += [left + right for left, right in merges] + list(CODE_LLAMA)
    vocabulary = {text: index for index, text in enumerate(entries)}
    theirs = transformers.CodeLlamaTokenizer(vocab=vocabulary, merges=merges)
    # As published: the space in front is the normaliser's, which infilling changes; version 5 adds a second rule.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    theirs.set_infilling_processor(True)
    library = LibraryTokenizer.from_str(theirs.backend_tokenizer.to_str())
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    ours = Tokenizer.from_folder(tmp_path)
    for prefix, suffix in [gap for gap in GAPS[:-1] if all(gap)]:
        for order in ("psm", "spm2"):
            wanted = theirs(prefix, suffix=suffix, suffix_first=order == "spm2")["input_ids"]
            assert ours.encode_infill(prefix, suffix, order=order) == wanted


def test_codestral_reads_the_suffix_first_and_no_middle() -> None:
    """``<s>[SUFFIX]suffix[PREFIX] prefix``, as Mistral documents its third tokenizer."""
    marks = {"[PREFIX]": CONTROL, "[MIDDLE]": CONTROL, "[SUFFIX]": CONTROL}
    tokenizer = Tokenizer.from_metadata(spm_metadata(["\u2581a", "\u2581b", "\u2581", "a", "b"], marks))
    assert texts(tokenizer, tokenizer.encode_infill("a", "b")) == [
        "<s>",
        "[SUFFIX]",
        "b",
        "[PREFIX]",
        "\u2581a",
    ]
    with pytest.raises(
        InvalidRequestError, match="order must be 'spm': this model marks no middle, got 'psm'"
    ):
        tokenizer.encode_infill("a", "b", order="psm")


def test_no_space_is_taken_where_the_vocabulary_adds_none() -> None:
    """CodeGemma's kind: SentencePiece without a space in front."""
    marks = dict.fromkeys(
        ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"], CONTROL
    )
    tokenizer = Tokenizer.from_metadata(
        spm_metadata(["\u2581a", "a", "\u2581"], marks, add_space_prefix=False)
    )
    found = texts(tokenizer, tokenizer.encode_infill("a", " a"))
    assert found == ["<s>", "<|fim_prefix|>", "a", "<|fim_suffix|>", "\u2581a", "<|fim_middle|>"]
    assert tokenizer.token_to_id("<|file_separator|>") in tokenizer.infill.end_ids


# -- what files say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")])
def test_ids_that_the_file_names_come_first(keys: tuple[str, str, str]) -> None:
    special = dict.fromkeys(["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<A>", "<B>", "<C>"], CONTROL)
    metadata = bpe_metadata(special=special)
    ids = [metadata["tokenizer.ggml.tokens"].index(text) for text in ("<A>", "<B>", "<C>")]
    named = {f"tokenizer.ggml.{key}_token_id": index for key, index in zip(keys, ids, strict=True)}
    tokenizer = Tokenizer.from_metadata({**metadata, **named})
    assert texts(tokenizer, tokenizer.encode_infill("", "")) == ["<A>", "<B>", "<C>"]
    assert tokenizer.infill.end_ids.issuperset(ids)


def test_places_that_conversions_of_gemma_name_are_no_marks() -> None:
    metadata = bpe_metadata(special=dict.fromkeys(["<unused60>", "<unused61>", "<unused62>"], USER_DEFINED))
    first = metadata["tokenizer.ggml.tokens"].index("<unused60>")
    named = {
        f"tokenizer.ggml.{key}_token_id": first + i for i, key in enumerate(("prefix", "middle", "suffix"))
    }
    assert Tokenizer.from_metadata({**metadata, **named}).infill is None


def test_padding_and_separators_end_a_gap() -> None:
    ends = ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
    marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=dict.fromkeys([*marks, *ends], USER_DEFINED)))
    assert tokenizer.infill.end_ids == {tokenizer.token_to_id(text) for text in (*marks, *ends)}
    described = tokenizer.describe()["infill"]
    assert described["order"] == "psm" and described["fim_pad"]["text"] == "<|fim_pad|>"


def test_llama_cpp_finds_the_marks_that_the_converter_names(
    code_llama: tuple[Any, Path], tmp_path: Path
) -> None:
    processor, folder = code_llama
    metadata = tokenizer_metadata(folder, processor.vocab_size())
    with LlamaCppVocabulary(tmp_path / "vocabulary.gguf", metadata) as theirs:
        found = [
            getattr(theirs.library, f"llama_vocab_fim_{role}")(theirs.vocabulary)
            for role in ("pre", "suf", "mid")
        ]
        assert found == [processor.piece_to_id(text) for text in CODE_LLAMA[:3]]
        assert theirs.library.llama_vocab_eot(theirs.vocabulary) == processor.piece_to_id(CODE_LLAMA[3])


def test_models_without_marks_are_refused() -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata())
    assert tokenizer.infill is None and tokenizer.describe()["infill"] is None
    with pytest.raises(UnsupportedError, match=r"the model was not trained to fill gaps.*fim_pre_token_id"):
        tokenizer.encode_infill("a", "b")


def test_nonsense_is_refused() -> None:
    names = dict.fromkeys(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"], NORMAL)
    tokenizer = Tokenizer.from_metadata(bpe_metadata(special=names))
    with pytest.raises(InvalidRequestError, match="order must be one of psm, spm, spm2, got 'PSM!'"):
        tokenizer.encode_infill("a", "b", order="PSM!")
    with pytest.raises(TokenizerError, match="expected a string"):
        tokenizer.encode_infill("a", None)  # type: ignore[arg-type]

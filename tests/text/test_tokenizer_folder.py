"""Tokenizers from Hugging Face folders, compared with the library that wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from torchless.errors import FormatError, TokenizerError, UnsupportedError
from torchless.text.tokenizer import Tokenizer

TEXT = [
    "Once upon a time there was a little dragon who loved tea.",
    "Én dag spiste den 42 kaker, ærlig talt! 🙂",
]


def byte_level() -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer trained by the library, with Llama 3's kind of post-processor."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin|>", "<|eot_id|>", "<|end_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(TEXT * 3, trainer)
    library.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    library.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", library.token_to_id("<|begin|>"))]
    )
    library.enable_truncation(5)
    return library


def sentencepiece_like() -> tokenizers.Tokenizer:
    """The kind of tokenizer.json that Llama 2's SentencePiece model is converted to."""
    library = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    library.train_from_iterator(TEXT[:1] * 3, trainer)
    description = json.loads(library.to_str())
    description["added_tokens"] = description["added_tokens"][:3]  # The bytes are ordinary tokens.
    return tokenizers.Tokenizer.from_str(json.dumps(description))


def write(folder: Path, library: tokenizers.Tokenizer, **files: Any) -> Path:
    library.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["<|eot_id|>x", "<s> a</s>", "a <tool> b", "  two  spaces "])
)
LIBRARIES = {"byte-level": byte_level(), "sentencepiece": sentencepiece_like()}


@pytest.mark.parametrize("kind", LIBRARIES)
def test_ids_and_texts_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    library = LIBRARIES[kind]
    library.no_truncation()
    tokenizer = Tokenizer.from_folder(write(tmp_path, library))
    assert tokenizer.describe()["kind"] == kind

    @settings(max_examples=300, deadline=None)
    @given(text=TEXTS, parse=st.booleans())
    def compare(text: str, parse: bool) -> None:
        library.encode_special_tokens = not parse
        ids = library.encode(text).ids
        assert tokenizer.encode(text, parse_special=parse) == ids
        for skip in (False, True):
            # The library writes one U+FFFD per broken byte and its decoders see added tokens apart.
            if not set(ids) & set(tokenizer._added_texts):
                assert tokenizer.decode(ids, skip_special_tokens=skip) == library.decode(
                    ids, skip_special_tokens=skip
                )

    compare()


def test_roles_come_from_the_configuration(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<|begin|>"}, "eos_token": "<|end_of_text|>", "chat_template": "hello"}
    folder = write(
        tmp_path, byte_level(), tokenizer_config=config, generation_config={"eos_token_id": [1, 7]}
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.bos_token) == (0, 2, "<|begin|>")
    assert tokenizer.eos_ids == {1, 2, 7}, "by text, by role, and from generation_config.json"
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.chat_template == "hello"
    assert tokenizer.encode("") == [0], "the post-processor adds BOS"
    assert len(tokenizer.encode("word " * 50)) > 50, "the file's truncation does not apply"


@pytest.mark.parametrize(("wanted", "prefix"), [(True, [0]), (False, [])])
def test_add_bos_token_wins_over_the_post_processor(wanted: bool, prefix: list[int], tmp_path: Path) -> None:
    config = {"bos_token": "<|begin|>", "add_bos_token": wanted}
    assert Tokenizer.from_folder(write(tmp_path, byte_level(), tokenizer_config=config)).encode("") == prefix


def test_ids_in_generation_config_are_enough(tmp_path: Path) -> None:
    files = {"generation_config": {"bos_token_id": 0, "eos_token_id": [2, 1]}}
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_level(), **files))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (0, 2, {1, 2})


def test_templates_in_files_win(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "tools"}]
    folder = write(tmp_path, byte_level(), tokenizer_config={"chat_template": named})
    assert Tokenizer.from_folder(folder).chat_templates == {"default": "old", "tool_use": "tools"}
    (folder / "chat_template.jinja").write_text("new")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag")
    expected = {"default": "new", "tool_use": "tools", "rag": "rag"}
    assert Tokenizer.from_folder(folder).chat_templates == expected


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"expected tokenizer.json or tokenizer.model"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', "\0"])
def test_a_broken_tokenizer_json_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_broken_configuration_is_named(content: str, tmp_path: Path) -> None:
    folder = write(tmp_path, byte_level())
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer_config.json"):
        Tokenizer.from_folder(folder)


def test_a_role_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="eos_token is '<nowhere>'"):
        Tokenizer.from_folder(write(tmp_path, byte_level(), tokenizer_config={"eos_token": "<nowhere>"}))


def test_padding_that_nobody_added_is_no_obstacle(tmp_path: Path) -> None:
    config = {"pad_token": "[PAD]", "unk_token": None, "eos_token": "<|end_of_text|>"}
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_level(), tokenizer_config=config))
    assert set(tokenizer.describe()["special_tokens"]) == {"eos"}


def test_a_decoder_that_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(models.BPE({"[UNK]": 0, "a</w>": 1}, [], unk_token="[UNK]"))
    library.decoder = decoders.BPEDecoder()
    with pytest.raises(UnsupportedError, match="BPEDecoder"):
        Tokenizer.from_folder(write(tmp_path, library))


def test_ids_above_the_vocabulary_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_level()))
    assert tokenizer.id_to_token(tokenizer.vocab_size - 1) == "<tool>"
    with pytest.raises(TokenizerError):
        tokenizer.token_bytes(tokenizer.vocab_size)

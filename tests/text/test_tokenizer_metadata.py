"""Tokenizers from GGUF metadata: what each key changes, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from vocabularies import LETTERS, bpe_metadata, spm_metadata

from torchless.errors import FormatError, TokenizerError, UnsupportedError
from torchless.text.pretokenizers import PRE_TOKENIZERS
from torchless.text.tokenizer import Tokenizer


def bpe(**changes: Any) -> Tokenizer:
    """A GPT-2-like tokenizer; `special` adds tokens, other names are keys below tokenizer.ggml."""
    metadata = bpe_metadata(special=changes.pop("special", None), merges=changes.pop("merges", None))
    metadata.update({f"tokenizer.ggml.{name}": value for name, value in changes.items()})
    return Tokenizer.from_metadata(metadata)


def spm(pieces: list[str], **changes: Any) -> Tokenizer:
    return Tokenizer.from_metadata(spm_metadata(pieces, **changes))


def texts_of(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.id_to_token(index) for index in tokenizer.encode(text, **options)]


# Pre-tokenizers.


@pytest.mark.parametrize("pre", [None, "default", "no-such-words", "LLAMA-BPE", ""])
def test_an_unknown_pre_tokenizer_is_refused_by_name(pre: str | None) -> None:
    with pytest.raises(UnsupportedError, match=repr(pre) if pre else "tokenizer.ggml.pre") as caught:
        Tokenizer.from_metadata(bpe_metadata(pre=pre))
    assert "tokenizer.json" in str(caught.value), "says what to do"


@pytest.mark.parametrize("pre", [name for entry in PRE_TOKENIZERS for name in entry.names])
def test_every_known_pre_tokenizer_keeps_all_text(pre: str) -> None:
    text = " Hello, it's\t\tTHE\r\n\r\n  12345 años 日本語 🙂  \u3000x\u00a0y"
    tokenizer = Tokenizer.from_metadata(bpe_metadata(pre=pre))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_cut_as_each_model_does() -> None:
    merges = ["1 2", "12 3", "123 4"]
    found = {
        pre: texts_of(
            Tokenizer.from_metadata(bpe_metadata(merges, pre=pre)), "12345", add_special_tokens=False
        )
        for pre in ("gpt-2", "llama-bpe", "qwen2")
    }
    assert found == {
        "gpt-2": ["1234", "5"],
        "llama-bpe": ["123", "4", "5"],
        "qwen2": ["1", "2", "3", "4", "5"],
    }


def test_qwen2_composes_characters_and_its_distilled_alias_does_not() -> None:
    qwen = Tokenizer.from_metadata(bpe_metadata(pre="qwen2"))
    distilled = Tokenizer.from_metadata(bpe_metadata(pre="deepseek-r1-qwen"))
    assert qwen.encode("e\u0301") == qwen.encode("\u00e9")
    assert distilled.decode(distilled.encode("e\u0301")) == "e\u0301"


def test_llama_bpe_takes_a_whole_word_that_is_a_token_without_merging() -> None:
    metadata = bpe_metadata(["a b"], pre="llama-bpe")
    metadata["tokenizer.ggml.tokens"].append("abc")  # No merge leads to it.
    metadata["tokenizer.ggml.token_type"].append(1)
    assert texts_of(Tokenizer.from_metadata(metadata), "abc", add_special_tokens=False) == ["abc"]


# Special tokens.


def test_control_tokens_are_read_from_text_only_on_request() -> None:
    tokenizer = bpe(special={"<|im_end|>": 3})
    end = tokenizer.token_to_id("<|im_end|>")
    assert tokenizer.encode("a<|im_end|>b", parse_special=True) == [97, end, 98]
    plain = tokenizer.encode("a<|im_end|>b")
    assert end not in plain
    assert tokenizer.decode(plain) == "a<|im_end|>b"
    assert tokenizer.decode([97, end, 98]) == "ab"
    assert tokenizer.decode([97, end, 98], skip_special_tokens=False) == "a<|im_end|>b"
    assert (tokenizer.token_bytes(end), tokenizer.token_bytes(end, special=True)) == (b"", b"<|im_end|>")
    assert tokenizer.special_ids == {end} == tokenizer.eos_ids


def test_user_defined_tokens_are_always_read_and_shown() -> None:
    tokenizer = bpe(special={"<think>": 4})
    (index,) = tokenizer.encode("<think>")
    assert tokenizer.id_to_token(index) == "<think>"
    assert tokenizer.decode([index]) == "<think>"


def test_sentencepiece_text_never_becomes_a_control_or_byte_token() -> None:
    tokenizer = spm(["▁", "<", "s", ">", "/", "0", "x", "4", "1", "</", "s>"])
    for text in ("</s>", "<s>", "<0x41>", "<unk>"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert len(ids) > 1
    assert tokenizer.encode("</s>", add_special_tokens=False, parse_special=True) == [2]


def test_bos_and_eos_follow_the_file_and_the_defaults_of_the_model() -> None:
    assert spm(["▁a"]).encode("") == [1], "SentencePiece: BOS by default"
    assert spm(["▁a"], add_bos_token=False, add_eos_token=True).encode("") == [2]
    assert bpe(bos_token_id=0).encode("") == [], "GPT-2: none by default"
    assert bpe(bos_token_id=5, eos_token_id=6, add_bos_token=True, add_eos_token=True).encode("") == [5, 6]
    assert bpe(bos_token_id=5, add_bos_token=True).encode("", add_special_tokens=False) == []
    with pytest.raises(FormatError, match="bos_token_id is missing"):
        bpe(add_bos_token=True)


def test_end_tokens_are_found_by_role_and_by_text() -> None:
    texts = {"<|im_end|>": 3, "<|endoftext|>": 1, "<end>": 3, "<|fim_pad|>": 3, "<|file_sep|>": 3}
    tokenizer = bpe(special=texts, eot_token_id=10, eom_token_id=11, eos_token_id=12, eos_token_ids=[12, 13])
    by_text = {tokenizer.token_to_id(text) for text in texts if text != "<end>"}
    assert tokenizer.eos_ids == by_text | {10, 11, 12, 13}
    assert tokenizer.token_to_id("<|endoftext|>") in tokenizer.special_ids, "although its type says normal"


def test_harmony_ends_a_message_with_end_but_not_the_answer() -> None:
    harmony = bpe(special={"<|end|>": 3, "<|return|>": 3, "<|call|>": 3})
    assert harmony.token_to_id("<|end|>") not in harmony.eos_ids
    assert bpe(special={"<|end|>": 3}).eos_ids


def test_a_token_that_merging_makes_is_text_whatever_it_looks_like() -> None:
    tokenizer = bpe(merges=["< /", "</ s", "</s >"])
    assert tokenizer.eos_ids == frozenset()
    assert tokenizer.decode(tokenizer.encode("</s>")) == "</s>"


def test_phi3_special_tokens_swallow_the_white_space_behind_them() -> None:
    metadata = spm_metadata(["▁", "a"], special={"<|user|>": 3}, add_bos_token=False)
    user = metadata["tokenizer.ggml.tokens"].index("<|user|>")
    plain = Tokenizer.from_metadata(metadata)
    phi = Tokenizer.from_metadata({**metadata, "general.name": "Phi-3 mini"})
    assert phi.encode("<|user|>\na", parse_special=True) == [user, *plain.encode("a")]
    assert plain.encode("<|user|>\na", parse_special=True) == [user, *plain.encode("\na")]


# Spaces.


def test_the_space_prefix_is_added_after_special_tokens_and_taken_away_again() -> None:
    pieces = ["▁", "a", "▁a"]
    assert texts_of(spm(pieces), "a</s>a", parse_special=True) == ["<s>", "▁a", "</s>", "▁a"]
    assert texts_of(spm(pieces, add_space_prefix=False), "a</s>a", parse_special=True)[1:] == [
        "a",
        "</s>",
        "a",
    ]
    for text in ("a", " a", "  a", "a a ", ""):
        assert spm(pieces).decode(spm(pieces).encode(text)) == text
        assert (
            spm(pieces, add_space_prefix=False).decode(spm(pieces, add_space_prefix=False).encode(text))
            == text
        )


def test_extra_spaces_are_removed_where_the_file_says_so() -> None:
    tokenizer = spm(["▁", "a", "▁a"], remove_extra_whitespaces=True)
    assert tokenizer.encode("  a   a ") == tokenizer.encode("a a")
    kept = spm(["▁", "a", "▁a"])
    assert kept.decode(kept.encode("  a   a ")) == "  a   a "


def test_a_continuation_keeps_its_first_space() -> None:
    tokenizer = spm(["▁", "a", "▁a"])
    index = tokenizer.token_to_id("▁a")
    assert (tokenizer.decode([index]), tokenizer.decode([index], continuation=True)) == ("a", " a")


# Bytes.


def test_unknown_characters_become_bytes_and_return() -> None:
    tokenizer = spm(["▁", "a"])
    assert texts_of(tokenizer, "aé", add_special_tokens=False) == ["▁", "a", "<0xC3>", "<0xA9>"]
    assert tokenizer.token_bytes(3 + 0xC3) == b"\xc3"
    assert tokenizer.decode([3 + 0xC3]) == "\ufffd"


def test_without_byte_tokens_unknown_characters_become_the_unknown_token() -> None:
    tokenizer = spm(["▁", "a"], byte_tokens=False)
    assert texts_of(tokenizer, "aéa") == ["<s>", "▁", "a", "<unk>", "a"]


def test_tokens_that_are_no_utf8_keep_their_bytes() -> None:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.tokens"] += [b"\xff\xfe".decode("utf-8", "surrogateescape"), ""]
    metadata["tokenizer.ggml.token_type"] += [1, 1]
    tokenizer = Tokenizer.from_metadata(metadata)
    last = tokenizer.vocab_size - 1
    assert tokenizer.token_bytes(last - 1) == b"\xff\xfe"
    assert tokenizer.token_bytes(last) == b""
    assert tokenizer.encode("hello") == [tokenizer.token_to_id("hello")]


def test_padding_tokens_decode_to_nothing() -> None:
    assert bpe(special={"[PAD7]": 5}).token_bytes(261) == b""


def test_every_byte_is_a_token_of_a_byte_level_vocabulary() -> None:
    tokenizer = bpe()
    assert [tokenizer.token_bytes(index) for index in range(256)] == [bytes([byte]) for byte in range(256)]


def test_a_character_without_tokens_is_an_error_not_a_gap() -> None:
    metadata = bpe_metadata(merges=[])
    metadata["tokenizer.ggml.tokens"] = [letter for letter in LETTERS if letter != "x"]
    metadata["tokenizer.ggml.token_type"] = [1] * 255
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"
    with pytest.raises(TokenizerError, match="'x' at position 2"):
        tokenizer.encode("abxc")


# Bad input.


def test_text_that_is_no_text_is_refused() -> None:
    for value in (b"bytes", None, 3):
        with pytest.raises(TokenizerError, match=type(value).__name__):
            bpe().encode(value)  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match=r"lone surrogate .* position 1"):
        bpe().encode("a\ud800")


def test_ids_outside_the_vocabulary_are_refused() -> None:
    tokenizer = bpe()
    for index in (-1, tokenizer.vocab_size, 1 << 40):
        for call in (tokenizer.token_bytes, tokenizer.id_to_token, lambda value: tokenizer.decode([value])):
            with pytest.raises(TokenizerError, match="not in the vocabulary"):
                call(index)
    with pytest.raises(TokenizerError, match="integer"):
        tokenizer.decode([1.5])  # type: ignore[list-item]
    assert tokenizer.decode(np.array([72, 73])) == "HI"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", None, "no tokenizer"),
        ("model", 3, "expected a string"),
        ("tokens", None, "tokens is missing"),
        ("tokens", "abc", "expected an array"),
        ("tokens", [1, 2], "other than strings"),
        ("tokens", ["a", "b", "a"], "both token 0 and token 2"),
        ("tokens", [], "0 entries"),
        ("scores", None, "scores is missing"),
        ("scores", [0.0, float("nan"), 0.0], "not finite"),
        ("scores", [0.0], "expected 3 numbers"),
        ("token_type", ["a", "b", "c"], "expected 3 numbers"),
        ("token_type", [1], "expected 3 numbers"),
        ("bos_token_id", 3, "vocabulary has 3 tokens"),
        ("eos_token_id", "x", "expected a token id"),
        ("add_bos_token", 1, "expected true or false"),
        ("eos_token_ids", [7], "expected ids below 3"),
    ],
)
def test_broken_metadata_is_named(key: str, value: Any, message: str) -> None:
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0],
    }
    metadata[f"tokenizer.ggml.{key}"] = value
    if value is None:
        del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(FormatError, match=message):
        Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize("merges", [["zz y"], ["nospace"], ["a b c"], [3], ["\ud800 a"]])
def test_broken_merges_are_a_format_error(merges: list[Any]) -> None:
    metadata = bpe_metadata(merges=[])
    metadata["tokenizer.ggml.merges"] = merges
    with pytest.raises(FormatError):
        Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize("model", ["rwkv", "plamo2"])
def test_other_kinds_of_tokenizer_are_refused_by_name(model: str) -> None:
    with pytest.raises(UnsupportedError, match=model):
        Tokenizer.from_metadata({"tokenizer.ggml.model": model})


# The rest.


def test_templates_and_description_come_from_the_metadata() -> None:
    metadata = bpe_metadata(special={"<s>": 3})
    metadata.update({"tokenizer.chat_template": "main", "tokenizer.chat_template.tool_use": "tools"})
    metadata["tokenizer.ggml.bos_token_id"] = 261
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.chat_template == "main"
    assert tokenizer.chat_templates == {"default": "main", "tool_use": "tools"}
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", None)
    assert tokenizer.describe() == {
        "kind": "byte-level",
        "pre_tokenizer": "gpt-2",
        "vocab_size": 262,
        "special_tokens": {"bos": {"id": 261, "text": "<s>"}},
        "end_tokens": [],
        "prefix_ids": [],
        "suffix_ids": [],
        "num_control_tokens": 1,
        "infill": None,
        "chat_templates": ["default", "tool_use"],
    }
    assert bpe().chat_template is None


def test_threads_with_different_wishes_do_not_disturb_each_other() -> None:
    tokenizer = bpe(special={"<|im_end|>": 3})
    expected = {parse: tokenizer.encode("a<|im_end|>" * 20, parse_special=parse) for parse in (False, True)}
    wrong: list[bool] = []

    def work(parse: bool) -> None:
        for _ in range(200):
            if tokenizer.encode("a<|im_end|>" * 20, parse_special=parse) != expected[parse]:
                wrong.append(parse)

    threads = [threading.Thread(target=work, args=(parse,)) for parse in (False, True, False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

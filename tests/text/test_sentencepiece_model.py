"""The reader of tokenizer.model files: right on a real one, calm on broken ones."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from torchless.errors import FormatError, UnsupportedError
from torchless.text.sentencepiece_model import parse_sentencepiece_model, read_sentencepiece_model
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def piece(text: str, score: float, kind: int = 1) -> bytes:
    content = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return message(1, content + (number(3, kind) if kind != 1 else b""))


PIECES = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("▁a", -0.0, 1),
    ("▁", -1.0, 1),
    ("a", -2.0, 1),
]


def model(trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    return (
        b"".join(piece(*entry) for entry in PIECES)
        + message(2, number(3, 2) + trainer)
        + message(3, normalizer)
    )


def write(folder: Path, data: bytes) -> Path:
    (folder / "tokenizer.model").write_bytes(data)
    return folder / "tokenizer.model"


def test_a_real_model_has_the_tokens_of_its_gguf(shared_data: Callable[[str], Path]) -> None:
    found = read_sentencepiece_model(shared_data("stories260K/tok512.model"))
    with GgufSource(shared_data("stories260K/stories260K-f32.gguf")) as source:
        for key in ("tokens", "scores", "token_type", "bos_token_id", "eos_token_id", "unknown_token_id"):
            assert found[f"tokenizer.ggml.{key}"] == source.metadata[f"tokenizer.ggml.{key}"]


def test_flags_and_roles_are_read(tmp_path: Path) -> None:
    trainer = number(41, 2) + number(42, 1) + number(43, -1) + number(40, 0) + message(1, b"input.txt")
    found = read_sentencepiece_model(write(tmp_path, model(trainer, number(3, 0) + number(4, 0))))
    assert found["tokenizer.ggml.tokens"] == [text for text, _, _ in PIECES]
    assert found["tokenizer.ggml.scores"] == [score for _, score, _ in PIECES]
    assert found["tokenizer.ggml.token_type"] == [kind for _, _, kind in PIECES]
    assert found["tokenizer.ggml.bos_token_id"] == 2
    assert found["tokenizer.ggml.eos_token_id"] == 1
    assert "tokenizer.ggml.padding_token_id" not in found
    assert found["tokenizer.ggml.add_space_prefix"] is False
    assert found["tokenizer.ggml.remove_extra_whitespaces"] is False


def test_sentencepieces_defaults_apply_to_what_the_file_leaves_out(tmp_path: Path) -> None:
    write(tmp_path, model())
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("  a  a ") == [1, 3, 3]


def test_tokens_added_later_stand_behind_the_pieces(tmp_path: Path) -> None:
    write(tmp_path, model(normalizer=number(4, 0)))
    config = {
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": True},
            "6": {"content": "<|im_end|>", "special": True},
            "7": {"content": "<think>", "special": False},
        },
        "eos_token": "<|im_end|>",
        "add_bos_token": False,
        "chat_template": "hello",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("<think><|im_end|>", parse_special=True) == [7, 6]
    assert (tokenizer.eos_id, tokenizer.eos_ids, tokenizer.special_ids) == (6, {2, 6}, {0, 1, 2, 6})
    assert tokenizer.chat_template == "hello"
    config["added_tokens_decoder"] = {"9": {"content": "<gap>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="'<gap>' has id 9"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("data", "message_part"),
    [
        (model(number(3, 1)), "unigram"),
        (model(number(3, 4)), "char"),
        (model(number(24, 1)), "treat_whitespace_as_suffix"),
        (model(normalizer=message(1, b"nmt_nfkc") + message(2, b"rules")), "nmt_nfkc"),
        (model(normalizer=number(5, 0)), "escape_whitespaces"),
    ],
)
def test_models_that_work_differently_are_refused(data: bytes, message_part: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=message_part):
        read_sentencepiece_model(write(tmp_path, data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # A piece of 2^63 bytes.
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # A length of eleven bytes.
        b"\x0b\x00",  # A group, which protobuf gave up.
        b"\x00\x00",  # Field 0.
        number(1, 5),  # A piece that is a number.
        message(1, b""),  # A piece without text.
        piece("a", 0.0, 9),
        message(1, message(1, b"a") + message(2, b"12345678")),  # A score of eight bytes.
        model()[:-1],
        b"GGUF" + bytes(100),
    ],
)
def test_broken_models_are_a_format_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a SentencePiece model"):
        read_sentencepiece_model(write(tmp_path, data))


def test_random_mutations_never_do_worse_than_an_error() -> None:
    rng = random.Random(5)
    good = model(number(41, 1), number(3, 1))
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = parse_sentencepiece_model(bytes(data[: rng.randint(1, len(data))]), Path("x"))
        except (FormatError, UnsupportedError):
            continue
        assert found["tokenizer.ggml.tokens"]

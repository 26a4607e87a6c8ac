"""The cache of built tokenizers: used when it can be trusted, else as if it were not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from vocabularies import bpe_metadata

from torchless.text import tokenizer_cache, tokenizer_gguf
from torchless.text.tokenizer import Tokenizer
from torchless.text.tokenizer_build import BuiltTokenizer, build_tokenizer
from torchless.text.vocabulary import read_vocabulary


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that takes even the smallest tokenizer, and a builder that counts."""
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizer_gguf, "_MIN_CACHED_ENTRIES", 0)
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def counting(vocabulary: Any) -> BuiltTokenizer:
        calls.append(vocabulary)
        return build_tokenizer(vocabulary)

    monkeypatch.setattr(tokenizer_gguf, "build_tokenizer", counting)
    return calls


def the_file(folder: Path) -> Path:
    (path,) = (folder / "tokenizers").iterdir()
    return path


def test_the_second_load_comes_from_the_cache_and_is_the_same(folder: Path, builds: list[Any]) -> None:
    metadata = bpe_metadata(special={"<|im_end|>": 3})
    metadata["tokenizer.ggml.tokens"].append(b"\xff".decode("utf-8", "surrogateescape"))
    metadata["tokenizer.ggml.token_type"].append(1)
    first, second = Tokenizer.from_metadata(metadata), Tokenizer.from_metadata(metadata)
    assert len(builds) == 1
    text = "hello <|im_end|> wörld"
    assert second.encode(text, parse_special=True) == first.encode(text, parse_special=True)
    assert second.describe() == first.describe()
    assert second.token_bytes(second.vocab_size - 1) == b"\xff"
    if os.name == "posix":
        assert stat.S_IMODE(the_file(folder).stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "tokenizers").stat().st_mode) == 0o700


@pytest.mark.parametrize("key", ["merges", "tokens", "token_type", "pre", "unknown_token_id"])
def test_another_vocabulary_is_another_entry(key: str, folder: Path, builds: list[Any]) -> None:
    metadata = bpe_metadata(special={"<a>": 4, "<b>": 4})
    Tokenizer.from_metadata(metadata)
    changed: dict[str, Any] = {
        "merges": [*metadata["tokenizer.ggml.merges"][1:], metadata["tokenizer.ggml.merges"][0]],
        "tokens": [*metadata["tokenizer.ggml.tokens"][:-2], "<c>", "<b>"],
        "token_type": [*metadata["tokenizer.ggml.token_type"][:-1], 3],
        "pre": "qwen2",
        "unknown_token_id": 3,
    }
    Tokenizer.from_metadata({**metadata, f"tokenizer.ggml.{key}": changed[key]})
    assert len(builds) == 2


def test_a_key_of_the_caller_replaces_the_hash(folder: Path, builds: list[Any]) -> None:
    metadata = bpe_metadata()
    for key in ("file-1", "file-1", "file-2"):
        Tokenizer.from_metadata(metadata, cache_key=key)
    assert len(builds) == 2


def test_boundaries_between_tokens_count() -> None:
    parts = [
        tokenizer_gguf._identity(read_vocabulary(bpe_metadata([first, second])), None)
        for first, second in (("a b", "ab c"), ("a b", "a bc"))
    ]
    assert tokenizer_cache.hash_key(parts[0]) != tokenizer_cache.hash_key(parts[1])


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "garbage", "shared", "link", "folder"])
def test_a_damaged_file_is_ignored_and_replaced(damage: str, folder: Path, builds: list[Any]) -> None:
    metadata = bpe_metadata()
    expected = Tokenizer.from_metadata(metadata).encode("hello world")
    path = the_file(folder)
    content = path.read_bytes()
    if damage == "shared":
        path.chmod(0o666)
    elif damage == "link":
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        flipped = content.replace(b'"hello"', b'"jello"')
        path.write_bytes(
            {"cut": content[:-9], "flip": flipped, "empty": b"", "garbage": b"\xff" * 99}[damage]
        )
    assert Tokenizer.from_metadata(metadata).encode("hello world") == expected
    assert len(builds) == 2
    if damage != "folder":
        Tokenizer.from_metadata(metadata)
        assert len(builds) == 2, "the damaged file was replaced"


def test_a_folder_that_cannot_be_made_does_no_harm(folder: Path, builds: list[Any]) -> None:
    folder.write_text("a file where the folder should be")
    for _ in range(2):
        assert Tokenizer.from_metadata(bpe_metadata()).vocab_size == 261
    assert len(builds) == 2


def test_small_vocabularies_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path / "cache"))
    Tokenizer.from_metadata(bpe_metadata())
    assert not (tmp_path / "cache").exists()


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path / "own"))
    assert tokenizer_cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("TORCHLESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tokenizer_cache.cache_folder() == tmp_path / "xdg" / "torchless"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tokenizer_cache.cache_folder() == tmp_path / ".cache" / "torchless"

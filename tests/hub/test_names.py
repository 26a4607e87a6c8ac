"""Which words are names of models, and which files a name means."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import torchless.hub
import torchless.hub.names
import torchless.hub.selection
from torchless.errors import ModelNotFoundError
from torchless.hub.names import HubName, WebName, parse_name
from torchless.hub.selection import select_files


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/repo", HubName("org/repo")),
        ("org/repo-2.5_x:Q4_K_M", HubName("org/repo-2.5_x", "Q4_K_M")),
        ("org/repo@v1.0:sub/file.gguf", HubName("org/repo", "sub/file.gguf", "v1.0")),
        ("hf://org/repo", HubName("org/repo")),
        ("hf:org/repo:Q8_0", HubName("org/repo", "Q8_0")),
        ("https://huggingface.co/org/repo", HubName("org/repo")),
        ("https://huggingface.co/org/repo/blob/main/a/b.gguf", HubName("org/repo", "a/b.gguf")),
        ("https://hf.co/org/repo/resolve/v2/b.gguf?download=true", HubName("org/repo", "b.gguf", "v2")),
        ("https://huggingface.co/org/repo/tree/v2", HubName("org/repo", None, "v2")),
        ("https://example.org/x/y.gguf", WebName("https://example.org/x/y.gguf")),
    ],
)
def test_names(text: str, name: HubName | WebName) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["model", "model.gguf", "org/model.gguf", "./org/repo", "/org/repo", "~/repo", "a/b/c", "../repo", "a/..", "a/b c",
     "yes and/or no", ""],
)  # fmt: skip
def test_paths(text: str) -> None:
    assert parse_name(text) is None


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert parse_name("models/mine") is None
    assert parse_name("hf:models/mine") == HubName("models/mine")
    with pytest.raises(ModelNotFoundError, match="expected hf:org/repo"):
        parse_name("hf:mine")


FILES = [
    "README.md",
    "m-Q8_0.gguf",
    "m-Q4_K_M.gguf",
    "m-UD-Q4_K_XL.gguf",
    "mmproj-m-F16.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
]
FOLDER = [
    "README.md",
    "config.json",
    "model.safetensors",
    "consolidated.safetensors",
    "tokenizer.json",
    "x.bin",
]


def test_a_quantisation_is_chosen() -> None:
    assert select_files(HubName("o/r"), FILES).entry == "m-Q4_K_M.gguf"
    assert select_files(HubName("o/r", "q8_0"), FILES).files == ("m-Q8_0.gguf",)
    assert select_files(HubName("o/r", "UD-Q4_K_XL"), FILES).entry == "m-UD-Q4_K_XL.gguf"
    split = select_files(HubName("o/r", "bf16"), FILES)
    assert split.entry == FILES[5] and split.files == tuple(FILES[5:])
    assert select_files(HubName("o/r", FILES[6]), FILES) == split
    assert select_files(HubName("o/r"), ["b.gguf", "a.gguf"]).entry == "a.gguf"
    assert select_files(HubName("o/r", "mmproj-m-F16.gguf"), FILES).files == ("mmproj-m-F16.gguf",)


def test_a_folder_is_taken_without_what_no_one_reads() -> None:
    assert select_files(HubName("o/r"), FOLDER) == (
        ("config.json", "model.safetensors", "tokenizer.json"),
        "",
    )


@pytest.mark.parametrize(
    ("choice", "files", "message"),
    [
        ("Q5_0", FILES, "has no Q5_0; GGUF models there: BF16, Q4_K_M, Q8_0, UD-Q4_K_XL"),
        ("Q4_0", FOLDER, "--quant Q4_0"),
        ("Q4_0", ["a-Q4_0.gguf", "b-Q4_0.gguf"], "several models are Q4_0: give the file: a-Q4_0.gguf"),
        (None, ["README.md", "model.bin"], "neither GGUF files nor a config.json"),
        (None, [], "found nothing"),
    ],
)
def test_what_is_not_there_is_said(choice: str | None, files: list[str], message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        select_files(HubName("o/r", choice), files)


@pytest.mark.parametrize("module", [torchless.hub, torchless.hub.names, torchless.hub.selection])
def test_examples_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0 and result.failed == 0

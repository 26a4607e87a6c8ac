"""Tokenizers built from real vocabularies give the ids that llama.cpp's own test files expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource

VOCABULARIES = ["deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"]


def load(path: Path) -> Tokenizer:
    with GgufSource(path) as source:
        return Tokenizer.from_metadata(source.metadata)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_all_vectors_of_a_vocabulary_pass(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data(f"vocab/ggml-vocab-{name}.gguf")
    tokenizer = load(path)
    with Path(f"{path}.inp").open(encoding="utf-8", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    expected = [
        [int(number) for number in line.split()] for line in Path(f"{path}.out").read_text().split("\n")
    ]
    assert len(texts) == len(expected) == 47
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids) == text


def test_special_ids_of_the_real_vocabularies(shared_data: Callable[[str], Path]) -> None:
    llama = load(shared_data("vocab/ggml-vocab-llama-bpe.gguf"))
    assert (llama.bos_id, llama.eos_id, llama.eos_ids) == (128000, 128001, {128001, 128009})
    assert llama.encode("") == [128000], "BOS is the default of this pre-tokenizer"
    assert llama.encode("<|eot_id|>", add_special_tokens=False, parse_special=True) == [128009]
    assert 128009 not in llama.encode("<|eot_id|>")
    qwen = load(shared_data("vocab/ggml-vocab-qwen2.gguf"))
    assert qwen.eos_ids == {151643, 151645}, "not 128247, '</s>': there it is a piece of HTML"
    assert qwen.decode(qwen.encode("<s>no</s>")) == "<s>no</s>"
    assert qwen.encode("") == []
    phi = load(shared_data("vocab/ggml-vocab-phi-3.gguf"))
    assert phi.eos_ids == {2, 32000, 32007}
    assert phi.chat_template is not None


@pytest.mark.parametrize("name", ["stories260K-f32.gguf", "hf"])
def test_stories_prompts_get_the_golden_ids(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data("stories260K") / name
    tokenizer = Tokenizer.from_folder(path) if path.is_dir() else load(path)
    entries = json.loads((path.parent / "golden.json").read_text())
    assert len(entries) == 7
    for entry in entries:
        assert tokenizer.encode(entry["prompt"]) == entry["ids"]
        assert tokenizer.decode(entry["ids"]) == entry["prompt"]
        assert tokenizer.decode(entry["greedy"], continuation=True) == entry["text"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (1, 2, {2})

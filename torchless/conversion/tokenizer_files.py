"""The tokenizer of a GGUF file as tokenizer.json, tokenizer_config.json and chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchless.conversion.tokenizer_metadata import check_same_tokens
from torchless.text.tokenizer import Tokenizer
from torchless.text.tokenizer_build import build_tokenizer
from torchless.text.vocabulary import Vocabulary, named_templates, read_vocabulary

__all__ = ["write_tokenizer_files"]

_ROLES = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "padding": "pad_token",
    "cls": "cls_token",
    "sep": "sep_token",
    "mask": "mask_token",
}


def write_tokenizer_files(folder: Path, metadata: Mapping[str, Any], context_length: int) -> None:
    """Writes the tokenizer's files, and checks that they give the ids that the metadata gives.

    Raises:
        FormatError: the metadata's tokenizer is broken.
        UnsupportedError: it cannot be read, or the files would give other ids.
    """
    vocabulary = read_vocabulary(metadata)
    description = json.loads(build_tokenizer(vocabulary).json)
    entries = description["model"]["vocab"]
    texts = list(entries) if isinstance(entries, dict) else [text for text, _ in entries]
    description["post_processor"] = _frame(vocabulary, texts)
    _write(folder / "tokenizer.json", description, indent=None)
    _write(folder / "tokenizer_config.json", _config(vocabulary, texts, metadata, context_length))
    check_same_tokens(Tokenizer.from_metadata(metadata), Tokenizer.from_folder(folder), folder)


def _config(
    vocabulary: Vocabulary, texts: list[str], metadata: Mapping[str, Any], context_length: int
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
    }
    for role, key in _ROLES.items():
        index = vocabulary.special_ids.get(role)
        config[key] = None if index is None else texts[index]
    templates = named_templates(metadata)
    if templates.keys() == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    return config


def _frame(vocabulary: Vocabulary, texts: list[str]) -> dict[str, Any] | None:
    """What other programs put around a text: the library's template for it."""
    before = [texts[vocabulary.special_ids["bos"]]] if vocabulary.add_bos else []
    after = [texts[vocabulary.special_ids["eos"]]] if vocabulary.add_eos else []
    if not before and not after:
        return None

    between = [texts[index] for index in vocabulary.pair_separator] or [*after, *before]

    def special(side: list[str], kind: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": text, "type_id": kind}} for text in side]

    def sequence(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    first = [*special(before, 0), sequence("A", 0)]
    ids = {text: texts.index(text) for text in (*before, *between, *after)}
    return {
        "type": "TemplateProcessing",
        "single": [*first, *special(after, 0)],
        "pair": [*first, *special(between, 0), sequence("B", 1), *special(after, 1)],
        "special_tokens": {
            text: {"id": text, "ids": [index], "tokens": [text]} for text, index in ids.items()
        },
    }


def _write(path: Path, content: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")

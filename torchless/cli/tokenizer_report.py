"""What there is to know about a model file's tokenizer, without building it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torchless.errors import TorchlessError
from torchless.weights.source import WeightSource

if TYPE_CHECKING:
    from torchless.text.infill import InfillFormat

__all__ = ["describe_tokenizer", "read_templates"]


def read_templates(source: WeightSource) -> dict[str, str]:
    """Chat templates by name, the main one as ``"default"``."""
    return describe_tokenizer(source)[1]


def describe_tokenizer(source: WeightSource) -> tuple[dict[str, Any], dict[str, str]]:
    """Description and templates. A GGUF's vocabulary is read, not built, which would take a second."""
    from torchless.text.end_tokens import CONTROL_TEXTS
    from torchless.text.infill import find_infill_format
    from torchless.text.tokenizer import Tokenizer
    from torchless.text.tokenizer_gguf import KINDS
    from torchless.text.vocabulary import named_templates, read_vocabulary

    try:
        if source.format == "safetensors":
            built = Tokenizer.from_folder(source.path if source.path.is_dir() else source.path.parent)
            about = built.describe()
            about["special_tokens"] = {role: token["text"] for role, token in about["special_tokens"].items()}
            return {**about, "infill": _gap(built.infill, built.id_to_token)}, built.chat_templates
    except TorchlessError as error:
        return {"error": str(error)}, {}
    try:
        templates = named_templates(source.metadata)
    except TorchlessError:
        templates = {}
    try:
        vocabulary = read_vocabulary(source.metadata)
    except TorchlessError as error:
        return {"error": str(error)}, templates
    tokens = vocabulary.tokens
    special = {role: tokens[token_id] for role, token_id in vocabulary.special_ids.items()}
    known = {index: text for index, text in enumerate(tokens) if text in CONTROL_TEXTS}
    named = {index: tokens[index] for index in vocabulary.special_ids.values()}
    return {
        "kind": KINDS[vocabulary.model],
        "pre_tokenizer": source.metadata.get("tokenizer.ggml.pre"),
        "vocab_size": len(vocabulary.tokens),
        "special_tokens": special,
        "infill": _gap(find_infill_format(vocabulary.special_ids, {**known, **named}), tokens.__getitem__),
        "add_bos": vocabulary.add_bos,
        "add_eos": vocabulary.add_eos,
    }, templates


def _gap(infill: InfillFormat | None, text_of: Callable[[int], str]) -> dict[str, str] | None:
    """The order in which a model reads the text around a gap, and its tokens by role."""
    if infill is None:
        return None
    return {"order": infill.order, **{role: text_of(index) for role, index in infill.ids.items()}}

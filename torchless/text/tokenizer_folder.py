"""Makes tokenizers from model folders: ``tokenizer.json``, else SentencePiece's ``tokenizer.model``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchless.errors import FormatError, UnsupportedError
from torchless.text.end_tokens import find_end_ids
from torchless.text.sentencepiece_model import read_sentencepiece_model
from torchless.text.tokenizer import TokenizerSpec
from torchless.text.tokenizer_gguf import load_library_tokenizer, tokenizer_from_metadata
from torchless.text.vocabulary import TokenType

__all__ = ["metadata_from_sentencepiece", "tokenizer_from_folder"]

_MAX_BYTES = 1 << 28
_ROLES = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "pad": "padding",
    "cls": "cls",
    "sep": "sep",
    "mask": "mask",
}


def tokenizer_from_folder(folder: Path) -> tuple[Any, TokenizerSpec]:
    """The library's tokenizer and our description of it; see `Tokenizer.from_folder`."""
    config = _read_config(folder)
    templates = _templates(folder, config)
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder, config, templates)
    if (folder / "tokenizer.model").is_file():
        metadata = metadata_from_sentencepiece(folder)
        for name, source in templates.items():
            metadata[f"tokenizer.chat_template.{name}".removesuffix(".default")] = source
        return tokenizer_from_metadata(metadata, None)
    raise FormatError(
        f"{folder} has no tokenizer: expected tokenizer.json or tokenizer.model; get it from the model's page"
    )


def metadata_from_sentencepiece(folder: Path) -> dict[str, Any]:
    """``tokenizer.ggml.*`` metadata from a folder's ``tokenizer.model`` and the tokens that were added to it."""
    config = _read_config(folder)
    metadata = read_sentencepiece_model(folder / "tokenizer.model")
    _add_tokens(folder, config, metadata)
    _add_settings(folder, config, metadata)
    return metadata


def _read_config(folder: Path) -> dict[str, Any]:
    return {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}


def _from_json(
    folder: Path, config: Mapping[str, Any], templates: dict[str, str]
) -> tuple[Any, TokenizerSpec]:
    path = folder / "tokenizer.json"
    library = load_library_tokenizer(_read_text(path), str(path))
    library.no_truncation()  # before the ids around a text are looked up: padding would hide them
    library.no_padding()
    decoder = library.decoder
    state = json.loads(decoder.__getstate__()) if decoder is not None else {}
    kinds = _decoder_kinds(state)
    is_word_piece = "WordPiece" in kinds
    special = {
        role: index
        for name, role in _ROLES.items()
        if (index := _role_id(folder, config, name, library.token_to_id)) is not None
    }
    for role, other in (("bos", "cls"), ("eos", "sep")):  # BERT calls them so
        if other in special and (is_word_piece or role not in special):
            special[role] = special[other]
    control = {
        token.content: index for index, token in library.get_added_tokens_decoder().items() if token.special
    }
    ends = find_end_ids(special, control.get) | _end_ids(folder)
    prefix, suffix = _frame(library, config, special)
    if not kinds & {"ByteLevel", "ByteFallback", "Metaspace", "WordPiece"}:
        raise UnsupportedError(
            f"{path}: the decoder is {state.get('type')!r}; torchless reads byte-level BPE, SentencePiece-like "
            f"tokenizers and WordPiece"
        )
    num_tokens = 1 + max(library.get_vocab(with_added_tokens=True).values(), default=-1)
    return library, TokenizerSpec(
        kind="byte-level" if "ByteLevel" in kinds else "wordpiece" if is_word_piece else "sentencepiece",
        pre=None,
        num_tokens=num_tokens,
        special_ids=special,
        end_ids=frozenset(index for index in ends if 0 <= index < num_tokens),
        prefix_ids=prefix,
        suffix_ids=suffix,
        pair_ids=_between(library, prefix, suffix),
        strip_leading_space="ByteLevel" not in kinds and _strips(state),
        templates=templates,
    )


def _frame(
    library: Any, config: Mapping[str, Any], special: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids around a text: what tokenizer_config.json says, else what the post-processor does."""
    plain = library.encode("a", add_special_tokens=False).ids
    framed = library.encode("a", add_special_tokens=True).ids
    start = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
    prefix, suffix = tuple(framed[:start]), tuple(framed[start + len(plain) :])
    for name, role in (("add_bos_token", "bos"), ("add_eos_token", "eos")):
        wanted = config.get(name)
        if not isinstance(wanted, bool):
            continue
        ids = (special[role],) if wanted and role in special else ()
        prefix, suffix = (ids, suffix) if role == "bos" else (prefix, ids)
    return prefix, suffix


def _between(library: Any, prefix: tuple[int, ...], suffix: tuple[int, ...]) -> tuple[int, ...]:
    """Ids between two texts: what the post-processor puts there."""
    plain = library.encode("a", add_special_tokens=False).ids
    framed = tuple(library.encode("a", "a", add_special_tokens=True).ids)
    inner = framed[len(prefix) : len(framed) - len(suffix)]
    return inner[len(plain) : len(inner) - len(plain)]


def _decoder_kinds(state: Mapping[str, Any]) -> set[str]:
    steps = state.get("decoders", [])
    return {str(state.get("type"))}.union(*(_decoder_kinds(step) for step in steps))


def _strips(state: Mapping[str, Any]) -> bool:
    """Whether the decoder takes away the space that the encoder put in front."""
    if state.get("type") == "WordPiece":
        return True
    if state.get("type") == "Strip":
        return bool(state.get("content") == " " and state.get("start", 0) > 0)
    if state.get("type") == "Metaspace":
        return bool(state.get("prepend_scheme", "always") != "never")
    return any(_strips(step) for step in state.get("decoders", []))


def _role_id(folder: Path, config: Mapping[str, Any], name: str, id_of: Any) -> int | None:
    """The id of e.g. ``bos_token``: by its text, else by the number in the model's configuration."""
    entry = config.get(f"{name}_token")
    text = entry.get("content") if isinstance(entry, dict) else entry
    if isinstance(text, str):
        index: int | None = id_of(text)
        if index is None and name in ("bos", "eos"):
            raise FormatError(f"{folder}: {name}_token is {text!r}, which is not in the vocabulary")
        return index
    if config.get(f"{name}_token", "absent") is None:
        return None  # Explicitly none.
    for file in ("generation_config.json", "config.json"):
        value = _read_json(folder / file).get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _end_ids(folder: Path) -> frozenset[int]:
    ends: set[int] = set()
    for file in ("generation_config.json", "config.json"):
        value = _read_json(folder / file).get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        ends.update(index for index in values if isinstance(index, int) and not isinstance(index, bool))
    return frozenset(ends)


def _add_tokens(folder: Path, config: Mapping[str, Any], metadata: dict[str, Any]) -> None:
    """Puts the tokens that were added after training behind those of ``tokenizer.model``."""
    added: dict[int, tuple[str, bool]] = {}
    for text, index in _read_json(folder / "added_tokens.json").items():
        added[index] = (text, False)
    for index, entry in config.get("added_tokens_decoder", {}).items():
        if (
            not str(index).isdigit()
            or not isinstance(entry, dict)
            or not isinstance(entry.get("content"), str)
        ):
            raise FormatError(f"{folder}/tokenizer_config.json: added_tokens_decoder[{index!r}] is {entry!r}")
        added[int(index)] = (entry["content"], entry.get("special") is True)
    tokens, scores, types = (
        metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type")
    )
    for index in sorted(added):
        text, is_control = added[index]
        kind = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
        if index < len(tokens) and tokens[index] == text:
            types[index] = kind if types[index] == TokenType.NORMAL else types[index]
        elif index == len(tokens):
            tokens.append(text)
            scores.append(0.0)
            types.append(kind)
        else:
            raise FormatError(
                f"{folder}: the added token {text!r} has id {index}, expected the next free id {len(tokens)}"
            )


def _add_settings(folder: Path, config: Mapping[str, Any], metadata: dict[str, Any]) -> None:
    tokens = metadata["tokenizer.ggml.tokens"]

    def id_of(text: str) -> int | None:
        return tokens.index(text) if text in tokens else None

    for name, role in _ROLES.items():
        index = _role_id(folder, config, name, id_of)
        if index is not None:
            metadata[f"tokenizer.ggml.{role}_token_id"] = index
    for flag in ("add_bos_token", "add_eos_token"):
        if isinstance(config.get(flag), bool):
            metadata[f"tokenizer.ggml.{flag}"] = config[flag]
    ends = [index for index in sorted(_end_ids(folder)) if 0 <= index < len(tokens)]
    metadata["tokenizer.ggml.eos_token_ids"] = ends


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; files of their own win over the one in tokenizer_config.json."""
    templates: dict[str, str] = {}
    entry = config.get("chat_template", _read_json(folder / "chat_template.json").get("chat_template"))
    if isinstance(entry, str):
        templates["default"] = entry
    elif isinstance(entry, list):
        for item in entry:
            if not isinstance(item, dict) or not all(
                isinstance(item.get(key), str) for key in ("name", "template")
            ):
                raise FormatError(f"{folder}: chat_template holds {item!r}, expected a name and a template")
            templates[item["name"]] = item["template"]
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = _read_text(path)
    return templates


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds {type(content).__name__}, expected an object")
    return content


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise FormatError(f"{path}: {size} bytes are more than a tokenizer file has (at most {_MAX_BYTES})")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text: {error}") from None

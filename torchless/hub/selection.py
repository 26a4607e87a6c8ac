"""Which files of a repository make the model that a name asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torchless.errors import ModelNotFoundError
from torchless.hub.names import HubName
from torchless.weights.gguf import PART_NAME

__all__ = ["Selection", "gguf_models", "quant_of", "select_files"]

_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "Q6_K", "Q4_0", "BF16", "F16", "F32")
"""Taken in this order where a name does not choose."""

_NOT_MODELS = re.compile(r"(^|/)(mmproj|imatrix)|[-_.](mmproj|imatrix)\b", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-_./])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32))(?=$|[-_./])",
    re.IGNORECASE,
)
_FOLDER_FILES = re.compile(
    r"[^/]*\.safetensors|[^/]*\.safetensors\.index\.json|(generation_)?config\.json|tokenizer[^/]*\.(json|model)"
    r"|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.(json|jinja)"
    r"|additional_chat_templates/[^/]*\.jinja"
)


class Selection(NamedTuple):
    """Files to have, and the one to open; "" opens their folder."""

    files: tuple[str, ...]
    entry: str


def select_files(name: HubName, files: Sequence[str]) -> Selection:
    """Chooses the files of a model.

    Raises:
        ModelNotFoundError: the repository holds no model, or none that the name means; says what there is.
    """
    models = gguf_models(files)
    if name.choice is None:
        if not models:
            return _folder(name, files)
        by_quant = {quant_of(entry): entry for entry in reversed(models)}
        for quant in _PREFERRED:
            if quant in by_quant:
                return Selection(models[by_quant[quant]], by_quant[quant])
        first = next(iter(models))
        return Selection(models[first], first)
    if name.choice in files:
        return _one_file(name.choice, models, files, name)
    wanted = name.choice.upper()
    found = [entry for entry in models if quant_of(entry) == wanted]
    if len(found) == 1:
        return Selection(models[found[0]], found[0])
    there = ", ".join(sorted({quant_of(entry) or entry for entry in models})) or "none"
    if found:
        raise ModelNotFoundError(f"{name}: several models are {wanted}: give the file: {', '.join(found)}")
    if not models and any(item.endswith(".safetensors") for item in files):
        raise ModelNotFoundError(
            f"{name}: the repository has no GGUF files, only safetensors; leave :{name.choice} out and quantise at "
            f"load with --quant {name.choice}"
        )
    raise ModelNotFoundError(f"{name}: the repository has no {name.choice}; GGUF models there: {there}")


def gguf_models(files: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """GGUF models by the file to open (the first part of a split one), with all their files."""
    models: dict[str, tuple[str, ...]] = {}
    for path in sorted(files):
        if not path.endswith(".gguf") or _NOT_MODELS.search(path):
            continue
        folder, slash, leaf = path.rpartition("/")
        match = PART_NAME.fullmatch(leaf)
        if match is None:
            models[path] = (path,)
        elif int(match["number"]) == 1:
            count = int(match["count"])
            parts = (f"{match['stem']}-{i + 1:05}-of-{count:05}.gguf" for i in range(count))
            models[path] = tuple(folder + slash + part for part in parts)
    return models


def quant_of(path: str) -> str:
    """The quantisation that a file's name (or its folder's) says; "" where it says none.

    >>> quant_of("Model-7B-Q4_K_M.gguf"), quant_of("IQ4_XS/m-00001-of-00002.gguf"), quant_of("model.gguf")
    ('Q4_K_M', 'IQ4_XS', '')
    """
    stem = path.removesuffix(".gguf")
    found = _QUANT.findall(stem)
    return found[-1].upper() if found else ""


def _one_file(
    path: str, models: dict[str, tuple[str, ...]], files: Sequence[str], name: HubName
) -> Selection:
    """A file that the name gives; of a split model all parts, of safetensors the whole folder."""
    for entry, parts in models.items():
        if path in parts:
            return Selection(parts, entry)
    return Selection((path,), path) if path.endswith(".gguf") else _folder(name, files)


def _folder(name: HubName, files: Sequence[str]) -> Selection:
    kept = tuple(item for item in files if _FOLDER_FILES.fullmatch(item))
    if "model.safetensors.index.json" in kept or "model.safetensors" in kept:
        # Some repositories hold the weights a second time in one file of another layout.
        kept = tuple(item for item in kept if not item.startswith("consolidated"))
    if "config.json" not in kept or not any(item.endswith(".safetensors") for item in kept):
        listed = ", ".join(files[:8]) or "nothing"
        raise ModelNotFoundError(
            f"{name}: the repository holds neither GGUF files nor a config.json with safetensors; found {listed}"
        )
    return Selection(kept, "")

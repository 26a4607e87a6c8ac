"""Reads adapters as the peft library writes them: adapter_config.json and adapter_model.safetensors.

Tensors are ``base_model.model.MODULE.lora_A.weight`` (rank, in) and ``.lora_B.weight`` (out, rank). A setting that
would change the arithmetic and is not computed here refuses the adapter, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchless.adapters.adapter import Adapter, checked_part
from torchless.adapters.files import CONFIG_NAME, WEIGHTS_NAME
from torchless.errors import FormatError, UnsupportedError
from torchless.quants import Floats
from torchless.weights.hf_config import read_json
from torchless.weights.mapped_file import MappedFile
from torchless.weights.names import canonical_name
from torchless.weights.safetensors import read_safetensors_header
from torchless.weights.stored_weights import FileTensor
from torchless.weights.text_parts import text_tensors

__all__ = ["adapter_from_folder"]

_PREFIX = "base_model.model."
_TENSOR_NAME = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")

_COPY_NAME = re.compile(r"(.+?)(?:\.base_layer)?\.weight")
_COPIED = ("token_embd.weight", "output.weight")

# Settings that torchless does not compute, what they may be, and what they are called.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_dora": ((None, False), "weight-decomposed adapters (DoRA)"),
    "use_qalora": ((None, False), "QALoRA"),
    "modules_to_save": ((None, []), "modules that are replaced as a whole (modules_to_save)"),
    "bias": ((None, "none"), "trained biases"),
    "lora_bias": ((None, False), "trained biases (lora_bias)"),
    "fan_in_fan_out": ((None, False), "layers that store their weights transposed (fan_in_fan_out)"),
    "layer_replication": ((None, []), "repeated layers (layer_replication)"),
    "trainable_token_indices": ((None, []), "trained rows of the embedding (trainable_token_indices)"),
    "target_parameters": ((None, []), "adapted experts (target_parameters)"),
    "alora_invocation_tokens": ((None, []), "activated LoRA (aLoRA)"),
    "arrow_config": ((None,), "routed adapters (Arrow)"),
    "kasa_config": ((None,), "weights without their smallest singular values (KaSA)"),
    "use_bdlora": ((None, False), "block-diagonal matrices (BD-LoRA)"),
    "monteclora_config": ((None,), "sampled adapters (MonteCLoRA)"),
}
# Ways to begin a training that change the model's own weights too.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def adapter_from_folder(folder: Path) -> Adapter:
    """Reads a folder of the peft library.

    Raises:
        FormatError: a file is missing or broken.
        UnsupportedError: a setting or a tensor that torchless does not compute, by name.
    """
    config_path = folder / CONFIG_NAME
    config = read_json(config_path, "configuration")
    _check_config(config_path, config)
    alpha = _number(config_path, config, "lora_alpha")
    found: dict[str, list[Floats | None]] = {}
    modules: dict[str, str] = {}
    copies: dict[str, FileTensor] = {}
    for name, tensor in _tensors(folder).items():
        copied = _copied_weight(name)
        if copied is not None:
            copies[copied] = tensor
            continue
        module, index = _module(folder, name)
        weight = canonical_name(f"{module}.weight") or ""
        if not weight or weight.startswith("hf."):
            raise UnsupportedError(
                f"{folder}: the adapter changes {module!r}, a layer that torchless does not know"
            )
        modules[weight] = module
        found.setdefault(weight, [None, None])[index] = tensor.floats()
    if not found:
        raise FormatError(f"{folder}: the adapter has no tensors")
    parts = {}
    for weight, (a, b) in found.items():
        rank, scale = _rank_and_scale(config_path, config, modules[weight])
        parts[weight] = checked_part(folder, modules[weight], a, b, scale)
        if parts[weight].rank != rank:
            raise FormatError(
                f"{folder}: {modules[weight]}: its matrices have the rank {parts[weight].rank}, but {CONFIG_NAME} says "
                f"{rank}"
            )
    return Adapter(
        path=folder,
        format="peft",
        architecture="",
        name=folder.name,
        base=str(config.get("base_model_name_or_path") or ""),
        alpha=alpha,
        parts=parts,
        rope_layout="half",
        copies=copies,
    )


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{path}: peft_type is {kind!r}; torchless applies 'LORA'")
    for key, (allowed, what) in _REFUSED.items():
        value = config.get(key)
        if value not in allowed and value != {}:
            raise UnsupportedError(f"{path}: {key} is {value!r:.80}: torchless does not apply {what}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UnsupportedError(
            f"{path}: init_lora_weights is {start!r}, which changes the model's own weights too; save the adapter as "
            f"plain LoRA (peft converts it)"
        )


def _tensors(folder: Path) -> dict[str, FileTensor]:
    """By the names that they have in the adapted model."""
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = "adapter_model.bin can run code when it is opened: save it as safetensors" if pickled else ""
        raise FormatError(f"{folder}: there is no {WEIGHTS_NAME} beside {CONFIG_NAME}. {hint}".rstrip(" ."))
    file = MappedFile(path)
    tensors = {}
    for name, stored in read_safetensors_header(file).items():
        inner = name.removeprefix(_PREFIX)
        inner = (
            f"model.{inner}" if inner.startswith("layers.") else inner
        )  # of a model without an output layer
        tensors[inner] = FileTensor(inner, file, stored)
    return text_tensors(tensors)


def _copied_weight(name: str) -> str | None:
    """The weight of the model that a tensor repeats, if it does."""
    match = _COPY_NAME.fullmatch(name)
    weight = None if match is None or ".lora_" in name else canonical_name(f"{match[1]}.weight")
    return weight if weight in _COPIED else None


def _module(folder: Path, name: str) -> tuple[str, int]:
    """The module that a tensor belongs to, and whether it is its matrix a (0) or b (1)."""
    match = _TENSOR_NAME.fullmatch(name)
    if match is None:
        kinds = {"lora_embedding_": "an adapted embedding", "lora_magnitude_vector": "DoRA"}
        what = next((text for part, text in kinds.items() if part in name), "neither lora_A nor lora_B")
        raise UnsupportedError(f"{folder}: tensor {name!r} is {what}, which torchless does not apply")
    return match[1], "AB".index(match[2])


def _rank_and_scale(path: Path, config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """A module's rank, and what its product counts: the settings for all, or those of the first pattern that fits."""
    rank = _number(path, config, "r")
    alpha = _number(path, config, "lora_alpha")
    rank = _by_pattern(path, config, "rank_pattern", module, rank)
    alpha = _by_pattern(path, config, "alpha_pattern", module, alpha)
    if rank < 1 or rank != int(rank):
        raise FormatError(f"{path}: r is {rank} for {module}, expected a whole number above 0")
    return int(rank), alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(path: Path, config: Mapping[str, Any], key: str, module: str, default: float) -> float:
    """The value of the first pattern that fits the end of a module's name, as the peft library matches them."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise FormatError(f"{path}: {key}: found {patterns!r:.60}, expected an object")
    for pattern in patterns:
        try:
            fits = re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module) is not None
        except re.error as error:
            raise FormatError(f"{path}: {key}: {pattern!r} is not a regular expression: {error}") from None
        if fits:
            return _number(path, patterns, pattern)
    return default


def _number(path: Path, config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        found = "it is missing" if value is None else f"found {value!r}"
        raise FormatError(f"{path}: {key}: {found}, expected a number above 0")
    return float(value)

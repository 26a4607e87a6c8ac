"""What there is to know about a model file without loading its weights: as plain values, and as lines."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torchless.activation_types import ActivationType, multiplied_type
from torchless.cli.attention_summary import cache, reach
from torchless.cli.terminal import columns, listing, number, styled
from torchless.cli.tokenizer_report import describe_tokenizer
from torchless.errors import TorchlessError
from torchless.memory import format_bytes
from torchless.models import ModelConfig, record_plan
from torchless.plan import Attention
from torchless.quants import by_name
from torchless.sampling.parameters import SamplingParams
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["ModelReport", "json_value"]

_KIND_NAMES = {"byte-level": "byte-level BPE", "sentencepiece": "SentencePiece", "wordpiece": "WordPiece"}


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """All tensors of one storage type, and what products multiply them with."""

    type: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    activations: ActivationType


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A model file's description.

    Attributes:
        config: what the model family read, None where it refused.
        attentions: of each layer that has one; empty where the family refused.
        refusal: why torchless cannot run the model, None where it can.
        tokenizer: its description, or ``{"error": ...}``.
        sampling: what the model recommends, by parameter; empty where it recommends nothing.
    """

    source: WeightSource
    config: ModelConfig | None
    attentions: tuple[Attention, ...]
    refusal: str | None
    types: list[TypeSummary]
    tokenizer: dict[str, Any]
    templates: dict[str, str]
    sampling: dict[str, Any]

    @classmethod
    def of(cls, source: WeightSource, activations: ActivationType = "int8") -> ModelReport:
        """Reads everything but the weights. What is wrong with a part is part of the report."""
        config, refusal = None, None
        attentions: tuple[Attention, ...] = ()
        types = _types(source.tensors.values(), activations)
        try:
            plan, config = record_plan(source)
            attentions = plan.attention_ops
            for item in types:
                by_name(item.type)
        except TorchlessError as error:
            refusal = str(error)
        tokenizer, templates = describe_tokenizer(source)
        return cls(source, config, attentions, refusal, types, tokenizer, templates, _sampling(source))

    @property
    def num_parameters(self) -> int:
        """Weights in all tensors."""
        return sum(item.num_parameters for item in self.types)

    def json(self) -> dict[str, Any]:
        """Everything, as values that JSON has."""
        metadata = self.source.metadata
        report = {
            "path": str(self.source.path),
            "format": self.source.format,
            "gguf_version": getattr(self.source, "version", None),
            "architecture": metadata.get("general.architecture"),
            "name": metadata.get("general.name"),
            "runs": self.refusal is None,
            "refusal": self.refusal,
            "num_parameters": self.num_parameters,
            "tensor_bytes": sum(item.num_bytes for item in self.types),
            "types": [asdict(item) for item in self.types],
            "config": None if self.config is None else asdict(self.config),
            "tokenizer": self.tokenizer,
            "chat_templates": self.templates,
            "sampling": self.sampling,
            "metadata": dict(metadata),
            "metadata_types": _value_types(self.source),
            "tensors": [asdict(item) for item in self.source.tensors.values()],
        }
        value: dict[str, Any] = json_value(report)
        return value

    def lines(self) -> list[str]:
        """The report for people."""
        blocks = [
            listing("Model", self._model()),
            listing("Shape", self._shape()),
            self._weights(),
            listing("Text", self._text()),
            listing("Sampling defaults", self._sampling()),
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block).splitlines()

    def _model(self) -> Iterable[tuple[str, str]]:
        metadata, source = self.source.metadata, self.source
        yield "name", str(metadata.get("general.name", ""))
        yield "architecture", str(metadata.get("general.architecture", "not said"))
        yield "parameters", _large(self.num_parameters)
        yield "size", format_bytes(sum(item.num_bytes for item in self.types))
        version = f" version {source.version}" if hasattr(source, "version") else ""
        parts = getattr(source, "num_parts", 1)
        yield "format", f"{source.format}{version}" + (f" in {parts} parts" if parts > 1 else "")
        yield "memory", _memory(source) if self.refusal is None else ""
        yield "file", str(source.path)
        yield "license", str(metadata.get("general.license", ""))
        yield "runs", "yes" if self.refusal is None else f"no: {self.refusal}"

    def _shape(self) -> Iterable[tuple[str, str]]:
        config = self.config
        if config is None:
            return
        yield "context", f"{config.context_length} tokens"
        yield "layers", str(config.num_layers)
        yield "width", f"{config.embedding_length}, {config.feed_forward_length} inside the MLP"
        shared = (
            f", {config.num_kv_heads} for keys and values" if config.num_kv_heads != config.num_heads else ""
        )
        yield "heads", f"{config.num_heads} of {config.head_dim}{shared}"
        yield "attention", reach(self.attentions)
        yield "cache", cache(self.attentions)
        yield (
            "vocabulary",
            f"{config.vocab_size} tokens" + (", output tied to the embedding" if config.tied else ""),
        )
        yield "rope", self._rope(config)

    def _rope(self, config: ModelConfig) -> str:
        prefix = f"{config.architecture}.rope."
        metadata = self.source.metadata
        base = metadata.get(f"{prefix}freq_base", 10000.0)
        turned = f"{2 * len(config.rope.inv_freq)} of {config.head_dim} elements"
        text = f"{config.rope.layout} pairs, {turned}, base {base:g}"
        scaling = metadata.get(f"{prefix}scaling.type")
        if scaling not in (None, "none"):
            text += f", {scaling} scaling by {metadata.get(f'{prefix}scaling.factor', 1.0):g}"
        elif "rope_freqs.weight" in self.source.tensors:
            text += ", frequency factors"
        return text

    def _weights(self) -> list[str]:
        if not self.types:
            return ["No tensors: the file holds a vocabulary or settings only."]
        total = sum(item.num_bytes for item in self.types)
        rows = [("type", "tensors", "parameters", "size", "share", "activations")]
        for item in self.types:
            share = f"{item.num_bytes / total:.1%}" if total else ""
            rows.append(
                (
                    item.type,
                    str(item.num_tensors),
                    f"{item.num_parameters:,}",
                    format_bytes(item.num_bytes),
                    share,
                    item.activations,
                )
            )
        return [
            styled("Weights", sys.stdout, bold=True),
            *(f"  {line}" for line in columns(rows, right=[1, 2, 3, 4])),
        ]

    def _text(self) -> Iterable[tuple[str, str]]:
        about = self.tokenizer
        if "error" in about:
            yield "tokenizer", f"none that torchless can use: {about['error']}"
        else:
            byte_level = about["kind"] == "byte-level"
            pre = (
                f"pre-tokenizer {about['pre_tokenizer']}, "
                if byte_level and about.get("pre_tokenizer")
                else ""
            )
            yield "tokenizer", f"{_KIND_NAMES[about['kind']]}, {pre}{about['vocab_size']} tokens"
            yield "special", ", ".join(f"{role} {token}" for role, token in about["special_tokens"].items())
            gap = about["infill"] or {}
            yield "fills gaps", ", ".join(f"{name} {text}" for name, text in gap.items())
        yield "template", self._template_summary()

    def _template_summary(self) -> str:
        if not self.templates:
            return "none: the model continues text and does not chat"
        names = ", ".join(f"{name} ({len(text)} characters)" for name, text in self.templates.items())
        return f"{names}; --template prints it"

    def _sampling(self) -> Iterable[tuple[str, str]]:
        if "error" in self.sampling:
            yield "the model", f"recommends nonsense: {self.sampling['error']}"
            return
        shown = {
            name: f"{name} {number(value)}" for name, value in asdict(SamplingParams(**self.sampling)).items()
        }
        usual = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
        yield "the model", ", ".join(shown[name] for name in self.sampling) or "recommends nothing"
        yield "torchless", ", ".join(shown[name] for name in usual if name not in self.sampling)


def _memory(source: WeightSource) -> str:
    """What running the model takes beside the interpreter, with a short context: loaded, and left in the file."""
    from torchless.backends import cpu
    from torchless.backends.base import ExecutorOptions

    plan, _ = record_plan(source)
    options = ExecutorOptions(16, 512, 1, 1)
    try:
        loaded, lazy = (
            sum(cpu.required_bytes(plan, source, replace(options, lazy=lazy)).values())
            for lazy in ("off", "all")
        )
    except TorchlessError:  # no extension, or a type without kernels
        return ""
    least = f", {format_bytes(lazy)} with --lazy" if lazy < loaded else ""
    return f"{format_bytes(loaded)} to run 512 tokens{least}"


def json_value(value: Any) -> Any:
    """`value` as JSON has it: arrays become lists, numbers that are not finite become strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not hasattr(value, "__len__"):  # a NumPy number
        return json_value(value.item())
    return [json_value(item) for item in value]


def _types(tensors: Iterable[TensorInfo], activations: ActivationType) -> list[TypeSummary]:
    """Sums by type, largest first."""
    found: dict[str, TypeSummary] = {}
    for tensor in tensors:
        multiplied = multiplied_type(tensor.type, activations)
        before = found.get(tensor.type, TypeSummary(tensor.type, 0, 0, 0, multiplied))
        found[tensor.type] = TypeSummary(
            tensor.type,
            before.num_tensors + 1,
            before.num_parameters + math.prod(tensor.shape),
            before.num_bytes + tensor.num_bytes,
            multiplied,
        )
    return sorted(found.values(), key=lambda item: -item.num_bytes)


def _sampling(source: WeightSource) -> dict[str, Any]:
    """Recommended parameters: those that the metadata changes."""
    try:
        params = asdict(SamplingParams.from_metadata(source.metadata))
    except TorchlessError as error:
        return {"error": str(error)}
    ours = asdict(SamplingParams())
    return {name: value for name, value in params.items() if value != ours[name]}


def _value_types(source: WeightSource) -> dict[str, str] | None:
    """GGUF types of the metadata: ``"UINT32"``, ``"ARRAY of STRING"``."""
    types = getattr(source, "value_types", None)
    if types is None:
        return None
    return {key: _type_name(kind.name, source.metadata[key]) for key, kind in types.items()}


def _type_name(name: str, value: Any) -> str:
    return f"{name} of {value.element_type.name}" if name == "ARRAY" else name


def _large(number: int) -> str:
    """``1.24 B (1,235,814,432)``."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g} {unit} ({number:,})"
    return str(number)

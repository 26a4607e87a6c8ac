"""Which type each tensor of one model gets: a recipe, or the least error within a budget, and the user's exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torchless import quants
from torchless.errors import InvalidRequestError, UnsupportedError
from torchless.quantization.encode import PLAIN_TYPES, check_writable
from torchless.quantization.recipes import ModelFacts, Recipe, fitting_type, may_quantize, tensor_type
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["Exceptions", "check_sources", "choose_types", "model_facts", "quantizable"]


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What the user wants otherwise than the recipe.

    Attributes:
        patterns: (regular expression found in the name, block type); the first that matches holds.
        output: block type of the output projection (of the embedding, where that is the same tensor).
        embedding: block type of the token embedding.
        pure: every matrix gets the recipe's base.
    """

    patterns: Sequence[tuple[str, str]] = ()
    output: str | None = None
    embedding: str | None = None
    pure: bool = False
    _compiled: list[tuple[re.Pattern[str], str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in (*(name for _, name in self.patterns), self.output, self.embedding):
            if name is not None:
                _check_type(name)
        for pattern, name in self.patterns:
            try:
                self._compiled.append((re.compile(pattern), name.upper()))
            except re.error as error:
                raise InvalidRequestError(
                    f"tensor type {pattern}={name}: {pattern!r} is no regular expression: {error}"
                ) from None

    def type_of(self, name: str, *, is_output: bool) -> str | None:
        """The type that the user asked for, or None."""
        for pattern, type_name in self._compiled:
            if pattern.search(name):
                return type_name
        if is_output and self.output is not None:
            return self.output.upper()
        if name == "token_embd.weight" and self.embedding is not None:
            return self.embedding.upper()
        return None


def model_facts(source: WeightSource, *, has_importance: bool = False) -> ModelFacts:
    """What the recipes' rules need to know of a model."""
    prefix = source.metadata.get("general.architecture", "")

    def number(key: str, default: int) -> int:
        value = source.metadata.get(f"{prefix}.{key}", default)
        return value if isinstance(value, int) else default

    heads = number("attention.head_count", 1)
    return ModelFacts(
        num_layers=number("block_count", 0),
        tied="output.weight" not in source.tensors,
        queries_per_kv=heads // max(1, number("attention.head_count_kv", heads)),
        num_experts=number("expert_count", 0),
        has_importance=has_importance,
    )


def quantizable(source: WeightSource) -> list[TensorInfo]:
    """The tensors that recipes apply to."""
    return [info for info in source.tensors.values() if may_quantize(info.name, info.shape)]


def choose_types(
    source: WeightSource, recipe: Recipe, facts: ModelFacts, exceptions: Exceptions
) -> dict[str, str]:
    """Block type of every tensor; those that recipes do not apply to keep theirs."""
    chosen = {info.name: info.type for info in source.tensors.values()}
    plain = replace(recipe, head=recipe.base, rules={}) if exceptions.pure else recipe
    for info in quantizable(source):
        is_output = info.name == "output.weight" or (facts.tied and info.name == "token_embd.weight")
        wanted = exceptions.type_of(info.name, is_output=is_output)
        if wanted is None:
            wanted = tensor_type(plain, info.name, info.shape, facts)
        chosen[info.name] = fitting_type(wanted, info.shape[-1])
    return chosen


def check_sources(source: WeightSource, chosen: Mapping[str, str], *, requantize: bool) -> None:
    """Raises InvalidRequestError where a tensor would be quantised a second time unasked."""
    for info in source.tensors.values():
        if chosen[info.name] == info.type or info.type in PLAIN_TYPES:
            continue
        if not requantize:
            raise InvalidRequestError(
                f"{source.path}: tensor {info.name!r} is quantised already ({info.type}); quantising it again to "
                f"{chosen[info.name]} adds to the error: start from the F16 or BF16 model, or allow it "
                f"(requantize=True, --requantize)"
            )
        quants.by_name(info.type)  # raises for a type that cannot be read


def _check_type(name: str) -> None:
    try:
        check_writable(name.upper())
    except UnsupportedError as error:
        raise InvalidRequestError(f"block type {name!r}: {error}") from None

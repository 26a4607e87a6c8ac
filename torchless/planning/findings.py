"""What planning finds: forecasts of recipes, and what to take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["AS_IT_IS", "Choice", "ModelPlan", "RecipeForecast"]

AS_IT_IS = "as it is"
"""Name of the row of the model's own types."""


@dataclass(frozen=True, slots=True)
class RecipeForecast:
    """One recipe of the model.

    Attributes:
        recipe: its name, or `AS_IT_IS`.
        file_bytes: all tensors.
        bits_per_weight: of them.
        weight_bytes, scratch_bytes, kv_bytes, process_bytes: of a process that runs it: packed matrices, work space, a
            full context, and everything else (interpreter, libraries, tokenizer).
        decode_tokens_per_second: with an empty context.
        long_decode_tokens_per_second: at the end of a full one.
        prefill_tokens_per_second: of a prompt of `rates.PROMPT_TOKENS` tokens.
        error: relative error of the weights (root of the mean square), None where it was not measured.
    """

    recipe: str
    file_bytes: int
    bits_per_weight: float
    weight_bytes: int
    scratch_bytes: int
    kv_bytes: int
    process_bytes: int
    decode_tokens_per_second: float
    long_decode_tokens_per_second: float
    prefill_tokens_per_second: float
    error: float | None

    @property
    def total_bytes(self) -> int:
        """Peak of resident memory."""
        return self.weight_bytes + self.scratch_bytes + self.kv_bytes + self.process_bytes


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model's forecasts.

    Attributes:
        model: what was looked at.
        context_length, kv_type, activations, num_threads, batch_tokens: what they hold for.
        memory_bytes: how much there is, and `memory_limit` what says so.
        rows: by recipe, largest first.
        choice: the recipe, cache type and context to take, or None where nothing fits.
        advice: why, in a sentence or two.
        lazy_bytes: peak of resident memory when the model as it is leaves its weights in the file (``lazy=True``); None
            where there is no file, or one that holds other weights than are used.
    """

    model: str
    context_length: int
    kv_type: str
    activations: str
    num_threads: int
    batch_tokens: int
    read_bytes_per_second: float
    memory_bytes: int | None
    memory_limit: str
    rows: tuple[RecipeForecast, ...]
    choice: Choice | None
    advice: str
    lazy_bytes: int | None = None

    def row(self, recipe: str) -> RecipeForecast:
        """The forecast of a recipe. Raises KeyError."""
        return next(row for row in self.rows if row.recipe == recipe)

    def json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        for mine, row in zip(values["rows"], self.rows, strict=True):
            mine["total_bytes"] = row.total_bytes
        return values


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take."""

    recipe: str
    kv_type: str
    context_length: int
    total_bytes: int

"""Model families, one file each, found by file name.

A family is a module with ``ARCHITECTURES`` (GGUF's names), ``read_config(reader) -> ModelConfig`` and
``forward(plan, config)``; ``LIMITS`` may say, for docs/models.md, what of the family does not run. `record_plan` runs
it once against a plan and checks that nothing in the file was left unread.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from torchless.config import ConfigReader, ModelConfig
from torchless.errors import FormatError, UnsupportedError
from torchless.long_rope import FACTOR_TENSORS
from torchless.plan import Embed, Plan
from torchless.tasks import Task, fit_to_task, read_pooling
from torchless.weights.source import WeightSource

__all__ = ["ModelConfig", "families", "find_family", "record_plan"]

# Read by `read_config` rather than by an op of the plan.
_CONFIG_TENSORS = frozenset({"rope_freqs.weight", *FACTOR_TENSORS.values()})


@cache
def families() -> dict[str, ModuleType]:
    """Family modules by each architecture that they run."""
    found = {}
    for item in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{item.name}")
        for architecture in module.ARCHITECTURES:
            found[architecture] = module
    return found


def find_family(architecture: str) -> ModuleType:
    """The module that runs `architecture`. Raises UnsupportedError naming it and what is known."""
    family = families().get(architecture)
    if family is None:
        known = ", ".join(sorted(families()))
        raise UnsupportedError(
            f"the model's architecture {architecture!r} is not supported; torchless runs: {known}"
            if architecture
            else "the file names no architecture (general.architecture), so it is not a language model"
        )
    return family


def record_plan(
    source: WeightSource,
    context_length: int | None = None,
    *,
    task: Task = "auto",
    choice: tuple[int, int] | None = None,
) -> tuple[Plan, ModelConfig]:
    """Reads a model's configuration and records its forward pass.

    `context_length` is what the model is loaded for, on which some rotary embeddings depend; None is what it was
    trained for. `task` and `choice` say where the plan ends; see `tasks.fit_to_task`.

    Raises:
        InvalidRequestError: the model cannot do the task.
        UnsupportedError: an unknown architecture or setting, or a tensor that the family does not use (named).
        FormatError: a setting is missing or of the wrong kind.
    """
    reader = ConfigReader(source, context_length)
    family = find_family(reader.architecture)
    config: ModelConfig = family.read_config(reader)
    config = read_pooling(reader, config)
    reader.finish()
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    family.forward(plan, config)
    known = {*plan.weight_names, *_CONFIG_TENSORS, *reader.tensors_read}
    drafts = _draft_layers(reader, config)
    unused = [name for name in source.tensors if name not in known and not name.startswith(drafts)]
    if unused:
        raise UnsupportedError(
            f"{source.path}: {len(unused)} tensors that torchless does not know for {reader.architecture} models, "
            f"such as {unused[0]!r}; leaving them out would change the result"
        )
    _check_vocabulary(source, plan)
    _check_positions(source, plan, config)
    fit_to_task(plan, config, task, choice)
    return plan, config


def _check_vocabulary(source: WeightSource, plan: Plan) -> None:
    """Every token that the output can name must have an embedding."""
    if plan.output_kind != "logits":
        return
    for op in plan.ops:
        if (
            isinstance(op, Embed)
            and op.index == "token"
            and plan.output is not None
            and plan.shapes[op.weight][0] != plan.output.width
        ):
            raise FormatError(
                f"{source.path}: {op.weight} has {plan.shapes[op.weight][0]} rows and the output {plan.output.width}; "
                f"both must be the size of the vocabulary"
            )


def _check_positions(source: WeightSource, plan: Plan, config: ModelConfig) -> None:
    """Every position of a text must have an embedding."""
    if plan.num_positions is not None and plan.num_positions < config.context_length:
        raise FormatError(
            f"{source.path}: {config.architecture}.context_length is {config.context_length}, but there are embeddings "
            f"of {plan.num_positions} positions"
        )


def _draft_layers(reader: ConfigReader, config: ModelConfig) -> tuple[str, ...]:
    """How tensors begin of layers behind the others that only guess further tokens (multi-token prediction)."""
    count = reader.count("nextn_predict_layers")
    return tuple(f"blk.{layer}." for layer in range(config.num_layers, config.num_layers + count))

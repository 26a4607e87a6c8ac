"""What a model is loaded for: to write text, to make embeddings, or to judge documents; and the plan's end for it.

A family records the whole model. Here its end is exchanged: embeddings need the final states and no logits, a decoder
that judges needs the logits of two tokens of a whole vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast, get_args

from torchless.config import ConfigReader, ModelConfig
from torchless.errors import FormatError, InvalidRequestError, UnsupportedError
from torchless.plan import Linear, Map, Piece, Plan
from torchless.pooling_types import Pooling
from torchless.weights.pooling_parts import NORMALIZE_KEY, POOLING_TYPES

__all__ = ["TASKS", "Task", "fit_to_task", "read_pooling", "task_name"]

Task = Literal["auto", "generate", "embed", "rerank"]
TASKS: tuple[Task, ...] = get_args(Task)

_POOLINGS: dict[int, Pooling | None] = {
    number: None if name in ("none", "rank") else name  # type: ignore[misc]
    for name, number in POOLING_TYPES.items()
}


def task_name(task: Any) -> Task:
    """The argument `task` of `load`, checked."""
    if task not in TASKS:
        raise InvalidRequestError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return cast(Task, task)


def read_pooling(reader: ConfigReader, config: ModelConfig) -> ModelConfig:
    """The configuration with how a text's rows become one vector, where the model says it."""
    normalize = reader.metadata.get(NORMALIZE_KEY, True)
    if not isinstance(normalize, bool):
        raise FormatError(
            f"{reader.source.path}: {NORMALIZE_KEY}: found {normalize!r:.60}, expected true or false"
        )
    if not reader.has_read("attention.causal"):  # encoders expect another
        reader.expect("attention.causal", True)
    if not reader.has("pooling_type"):
        reader.expect("pooling_type")
        is_bare = reader.text("hf.architecture", "").endswith(
            "Model"
        )  # saved without what it would write with
        return replace(config, makes_vectors=is_bare, normalize=normalize)
    kind = reader.count("pooling_type")
    if kind not in _POOLINGS:
        raise UnsupportedError(
            f"{reader.source.path}: {reader.architecture}.pooling_type is {kind}; torchless knows "
            f"{', '.join(f'{number} ({name})' for name, number in POOLING_TYPES.items())}"
        )
    makes_vectors = kind != POOLING_TYPES["rank"]
    return replace(config, pooling=_POOLINGS[kind], makes_vectors=makes_vectors, normalize=normalize)


def fit_to_task(plan: Plan, config: ModelConfig, task: Task, choice: tuple[int, int] | None = None) -> None:
    """Gives the plan the end that the task needs.

    Args:
        choice: token ids of "no" and "yes", between which a decoder chooses when it judges.

    Raises:
        InvalidRequestError: the model cannot do what it is loaded for.
    """
    kind = plan.output_kind
    wants_states = task == "embed" or (task == "auto" and config.makes_vectors)
    if task == "generate" and kind != "logits":
        raise InvalidRequestError(
            f"a {config.architecture} model does not write text; load it with task='auto' and call embed or rerank"
        )
    if wants_states and kind == "logits":
        _end_with_states(plan)
    elif task == "embed" and kind == "scores":
        raise InvalidRequestError("this model judges pairs of texts and makes no embeddings; call rerank")
    elif task == "rerank" and kind == "states":
        raise InvalidRequestError(
            "this model has no classifier that would judge documents; compare the vectors that embed returns"
        )
    elif task == "rerank" and kind == "logits":
        if choice is None:
            raise InvalidRequestError(
                "a decoder judges with the tokens 'yes' and 'no', which this model does not have"
            )
        _end_with_choice(plan, choice)


def _end_with_states(plan: Plan) -> Linear:
    """Takes away the product that makes logits and what follows it; returns it."""
    made_by = {op.out: index for index, op in enumerate(plan.ops)}
    assert plan.output is not None
    op = plan.ops[made_by[plan.output]]
    while isinstance(op, Map):
        op = plan.ops[made_by[op.x]]
    if not isinstance(op, Linear):
        raise UnsupportedError(
            "this model's logits are no product of its final states, which embeddings are made of"
        )
    del plan.ops[made_by[op.out] :]
    plan.set_output(op.x, "states")
    return op


def _end_with_choice(plan: Plan, choice: tuple[int, int]) -> None:
    """Logits of two tokens alone: (outputs, 2). A soft cap or factor on them would not change which is larger, but how
    much: it is kept."""
    maps = []
    assert plan.output is not None
    made_by = {op.out: op for op in plan.ops}
    op = made_by[plan.output]
    while isinstance(op, Map):
        maps.append(op)
        op = made_by[op.x]
    head = _end_with_states(plan)
    pair = [plan.linear(head.x, head.weight, bias=head.bias, rows=(index, index + 1)) for index in choice]
    x = plan.columns([Piece(value, 0, 1) for value in pair])
    for item in reversed(maps):
        x = plan.soft_cap(x, item.parameter) if item.function == "soft_cap" else plan.scale(x, item.parameter)
    plan.set_output(x, "scores")

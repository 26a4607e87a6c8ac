"""Fields of a body that say how tokens are picked: ours, and those of other engines."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from torchless.constraints import requests as constraints
from torchless.sampling import parameters
from torchless.sampling.parameters import SamplingParams
from torchless.server.errors import ApiError

__all__ = ["is_constrained", "sampling_keywords", "seeds"]

# Functions cannot come over HTTP; numbers of answers and log probabilities have fields of their own in each API.
_NOT_SERVED = {"processors", "n", "best_of", "logprobs", "prompt_logprobs"}
_NAMES = (
    {item.name for item in fields(SamplingParams) if item.name not in _NOT_SERVED}
    | {name for name, meaning in parameters.ALIASES.items() if meaning not in _NOT_SERVED}
    | set(constraints.NAMES)
    | set(constraints.ALIASES)
    | {"priority"}
)
_SEEDS = parameters.MAX_SEED + 1


def sampling_keywords(given: Mapping[str, Any], other_names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Keywords for a request, of fields that are its sampling parameters or what its text must match.

    Args:
        other_names: fields that the API has besides, for the message about an unknown one.

    Raises:
        ApiError: a field is unknown; the message has the nearest name.
    """
    for name in given:
        if name not in _NAMES:
            near = get_close_matches(name, [*_NAMES, *other_names], n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else "; docs/server.md lists what there is"
            raise ApiError(400, f"{name:.100}: no such field{hint}", code="unknown_field", param=name[:100])
    keywords = _without_twins(given)
    if type(keywords.get("priority")) is int and keywords["priority"] < 0:
        message = f"priority: 0 to 100, to come behind others; {keywords['priority']} would come before them"
        raise ApiError(400, message, code="invalid_value", param="priority")
    if "logit_bias" in keywords:
        keywords["logit_bias"] = _by_id(keywords["logit_bias"])
    seed = keywords.get("seed")
    if seed == -1:  # other engines' "draw one"
        del keywords["seed"]
    elif type(seed) is int and -(1 << 63) <= seed < 0:
        keywords["seed"] = seed % _SEEDS
    return keywords


def is_constrained(keywords: Mapping[str, Any]) -> bool:
    """Whether keywords say what the text must match."""
    wanted = {*constraints.NAMES, *constraints.ALIASES} & keywords.keys()
    return any(keywords[name] not in (None, False, "", {"type": "text"}) for name in wanted)


def _without_twins(given: Mapping[str, Any]) -> dict[str, Any]:
    """One keyword for each parameter, where several name the same with the same value.

    Raises:
        ApiError: they have different values.
    """
    found: dict[str, str] = {}
    for name in given:
        meaning = parameters.ALIASES.get(name, name)
        other = found.setdefault(meaning, name)
        if given[other] != given[name]:
            message = f"{name}: means the same as {other}, which has another value; send one of them"
            raise ApiError(400, message, code="invalid_value", param=name)
    return {name: given[name] for name in found.values()}


def seeds(keywords: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The same keywords for each of several answers, with seeds that follow one another.

    So the i-th answer is that of a request with the seed plus i.
    """
    if count == 1:
        return [dict(keywords)]
    first = keywords.get("seed")
    if first is None:
        first = secrets.randbits(32)
    if type(first) is not int:
        return [dict(keywords)] * count  # refused where it is checked
    return [{**keywords, "seed": (first + index) % _SEEDS} for index in range(count)]


def _by_id(biases: Any) -> Any:
    """JSON has no numbers as keys: ``{"50256": -100}``. What is no such thing is refused where it is checked."""
    if not isinstance(biases, dict):
        return biases
    try:
        return {int(key): value for key, value in biases.items()}
    except ValueError:
        raise ApiError(
            400,
            f"logit_bias: its names are token ids, got {next(iter(biases))!r:.60}",
            code="invalid_value",
            param="logit_bias",
        ) from None

"""Sampling parameters of one request: names, defaults, allowed ranges and other tools' names for them."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any

from torchless.errors import FormatError, InvalidRequestError
from torchless.keywords import resolve_keywords

__all__ = ["SamplingParams"]

MAX_SEED = 2**64 - 1
MAX_BIAS = 1e30  # far beyond any logit, and no sum of the two overflows float32

# Other tools' keyword -> ours.
_ALIASES = {
    "temp": "temperature",
    "n": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "repeat_last_n",
    "repetition_context_size": "repeat_last_n",
    "stop_sequences": "stop",
    "stop_strings": "stop",
}

# llama.cpp and Ollama write "no limit" as a negative count under these names; ours is None.
_COUNTS_WITH_NEGATIVE_INFINITY = frozenset({"n", "n_predict", "num_predict", "predict"})

# GGUF metadata key -> parameter: what the model's makers recommend.
_METADATA_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.penalty_last_n": "repeat_last_n",
}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are picked and when a request ends. Checked when made; never changed after.

    Attributes:
        temperature: logits are divided by it; 0 picks the most likely token. Any number >= 0.
        top_k: only the k most likely tokens stay; 0 keeps all.
        top_p: only the most likely tokens that together reach this probability stay; 1 keeps all.
        min_p: only tokens at least this times as likely as the most likely one stay; 0 keeps all.
        repeat_penalty: logits of recent tokens are divided by it when positive and multiplied when
            not (Keskar et al. 2019); 1 changes nothing.
        repeat_last_n: how many of the last tokens (prompt included) count as recent; -1 means all.
        seed: 0 .. 2**64 - 1. A token depends on seed, position and logits only. None draws one at
            random, which `Completion.params` reports.
        stop: strings that end the text where they appear; they are not part of it.
        max_tokens: most tokens to generate; None generates until the model ends or the context is full.
        logit_bias: token id -> number added to its logit; ``-inf`` forbids the token.
        ignore_eos: forbid the tokens that end a text.

    Raises:
        InvalidRequestError: a value is out of range or of the wrong type.

    Example:
        >>> SamplingParams(temperature=0, stop="END").stop
        ('END',)
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> SamplingParams:
        """Parameters from keywords, under our names or those of other tools (``temp``, ``n_predict``, ...).

        A value of None stands for the default.

        Raises:
            TypeError: an unknown keyword; the message names the nearest one.
            InvalidRequestError: a value out of range.
        """
        return cls().updated(**kwargs)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> SamplingParams:
        """The defaults of a model: what its metadata recommends (``general.sampling.*``), else ours.

        Raises:
            FormatError: a recommended value is nonsense.
        """
        found = {}
        for key, name in _METADATA_KEYS.items():
            value = metadata.get(key)
            if value is None:
                continue
            if name == "top_k" and isinstance(value, int) and value < 0:
                value = 0  # "keep all", as llama.cpp writes it
            if isinstance(value, float):
                value = float(f"{value:.7g}")  # stored as float32: 0.800000011920929 was meant as 0.8
            try:
                found[name] = _CHECKS[name](name, value)
            except InvalidRequestError as error:
                raise FormatError(
                    f"metadata {key} recommends a sampling value out of range: {error}"
                ) from None
        return cls(**found)

    def updated(self, **kwargs: Any) -> SamplingParams:
        """These parameters with some changed; keywords as in `from_kwargs`."""
        for keyword in _COUNTS_WITH_NEGATIVE_INFINITY & kwargs.keys():
            if type(kwargs[keyword]) is int and kwargs[keyword] in (-1, -2):
                kwargs[keyword] = None
        resolved = resolve_keywords("sampling", kwargs, _CHECKS, _ALIASES)
        changes = {name: value for name, value in resolved.items() if value is not None}
        return replace(self, **changes) if changes else self

    def seeded(self) -> SamplingParams:
        """These parameters with a seed: the given one, or one drawn at random."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))


# -- checks: (name, value) -> value in its final form ---------------------------------------------

_Check = Callable[[str, Any], Any]


def _invalid(name: str, value: object, expected: str) -> InvalidRequestError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequestError(f"{name} must be {expected}, got {shown}")


def _number(low: float, high: float, expected: str, *, above_low: bool = False) -> _Check:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise _invalid(name, value, expected)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and low <= number <= high) or (above_low and number == low):
            raise _invalid(name, value, expected)
        return number

    return check


def _integer(low: int, high: int | None, expected: str, *, optional: bool = False) -> _Check:
    def check(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        try:
            number = operator.index(value)
        except TypeError:
            raise _invalid(name, value, expected) from None
        if isinstance(value, bool) or number < low or (high is not None and number > high):
            raise _invalid(name, value, expected)
        return number

    return check


def _stop_strings(name: str, value: Any) -> tuple[str, ...]:
    expected = "a non-empty string or a list of such"
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Iterable) or isinstance(strings, bytes | Mapping):
        raise _invalid(name, value, expected)
    strings = tuple(strings)
    if not all(isinstance(string, str) and string for string in strings):
        raise _invalid(name, value, expected)
    return strings


def _bias(name: str, value: Any) -> dict[int, float]:
    expected = "a dictionary {token id: number}"
    if not isinstance(value, Mapping):
        raise _invalid(name, value, expected)
    check_id = _integer(0, 2**31 - 1, "a whole number, 0 or more")
    check_bias = _number(
        -MAX_BIAS, MAX_BIAS, f"a number from -{MAX_BIAS:g} to {MAX_BIAS:g}, or -inf (forbidden)"
    )
    biases: dict[int, float] = {}
    for token_id, bias in value.items():
        number = -math.inf if _is_minus_infinity(bias) else check_bias(f"{name}[{token_id!r}]", bias)
        biases[check_id(f"a token id in {name}", token_id)] = number
    return biases


def _is_minus_infinity(value: Any) -> bool:
    return isinstance(value, float) and value == -math.inf


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(name, value, "True or False")
    return value


_CHECKS: Mapping[str, _Check] = {
    "temperature": _number(0, math.inf, "a finite number, 0 (greedy) or more"),
    "top_k": _integer(0, None, "a whole number, 0 (off) or more"),
    "top_p": _number(0, 1, "a number from 0 to 1 (1 is off)"),
    "min_p": _number(0, 1, "a number from 0 (off) to 1"),
    "repeat_penalty": _number(0, math.inf, "a finite number above 0 (1 is off)", above_low=True),
    "repeat_last_n": _integer(-1, None, "a whole number: -1 (all tokens), 0 (off) or more"),
    "seed": _integer(0, MAX_SEED, "a whole number from 0 to 2**64 - 1, or None (random)", optional=True),
    "stop": _stop_strings,
    "max_tokens": _integer(1, None, "a whole number, 1 or more, or None (no limit)", optional=True),
    "logit_bias": _bias,
    "ignore_eos": _flag,
}

assert tuple(_CHECKS) == tuple(item.name for item in fields(SamplingParams))

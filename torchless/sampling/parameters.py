"""Sampling parameters of one request: names, defaults, allowed ranges and other tools' names for them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torchless.errors import FormatError, InvalidRequestError
from torchless.keywords import resolve_keywords
from torchless.sampling.checks import (
    SAMPLERS,
    Check,
    biases_by_id,
    flag,
    functions,
    integer_in,
    logprob_count,
    number_in,
    sampler_names,
    strings,
)

__all__ = ["ALIASES", "SamplingParams", "parameter_name"]

MAX_SEED = 2**64 - 1

MAX_LOGPROBS = 20
"""Most likely tokens that are named for each place."""

MAX_ANSWERS = 128
"""Most answers to one request."""

ALIASES = {
    "temp": "temperature",
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
    "typ_p": "typical_p",
    "typical": "typical_p",
    "top_nsigma": "top_n_sigma",
    "penalty_freq": "frequency_penalty",
    "penalty_present": "presence_penalty",
    "dry_sequence_breaker": "dry_sequence_breakers",
    "dynamic_temperature_range": "dynatemp_range",
    "dynatemp_exp": "dynatemp_exponent",
    "mirostat_ent": "mirostat_tau",
    "mirostat_lr": "mirostat_eta",
    "min_new_tokens": "min_tokens",
    "n_min": "min_tokens",
    "sampling_seq": "samplers",
    "logits_processor": "processors",
    "logits_processors": "processors",
    "banned_strings": "banned",
    "bad_words": "banned",
    "top_logprobs": "logprobs",
    "num_return_sequences": "n",
}
"""Other tools' keyword -> ours."""

# llama.cpp and Ollama write "no limit" as a negative count under these names; ours is None.
_COUNTS_WITH_NEGATIVE_INFINITY = frozenset({"n_predict", "num_predict", "predict"})

# GGUF metadata key -> parameter: what the model's makers recommend.
_METADATA_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.penalty_last_n": "repeat_last_n",
    "general.sampling.sequence": "samplers",
    "general.sampling.xtc_probability": "xtc_probability",
    "general.sampling.xtc_threshold": "xtc_threshold",
    "general.sampling.mirostat": "mirostat",
    "general.sampling.mirostat_tau": "mirostat_tau",
    "general.sampling.mirostat_eta": "mirostat_eta",
}


def parameter_name(keyword: str) -> str:
    """Our name of a sampling parameter that may be given under another tool's.

    >>> parameter_name("temp"), parameter_name("top_k")
    ('temperature', 'top_k')
    """
    return ALIASES.get(keyword, keyword)


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
        frequency_penalty: subtracted from a token's logit for each time it is among the recent ones; 0 is off.
        presence_penalty: subtracted once for each token among the recent ones; 0 is off.
        dry_multiplier, dry_base, dry_allowed_length: a token that would prolong a repetition of L tokens loses
            ``multiplier * base ** (L - allowed_length)``; multiplier 0 is off.
        dry_penalty_last_n: how many of the last tokens are searched for repetitions; -1 means all.
        dry_sequence_breakers: strings that no repetition reaches across.
        top_n_sigma: only tokens within so many standard deviations of the largest logit stay; 0 or less is off.
        typical_p: only tokens about as surprising as expected, up to this probability, stay; 1 keeps all.
        xtc_probability, xtc_threshold: with this probability, all tokens of at least the threshold but the least likely
            of them go; probability 0, or a threshold above 0.5, is off.
        dynatemp_range, dynatemp_exponent: the temperature moves within ``temperature`` plus or minus the range, with
            the entropy of the candidates to the power of the exponent; range 0 is off.
        mirostat: 1 or 2 picks by Mirostat (Basu et al. 2021), which replaces all of these but penalties, dry and
            temperature; 0 is off.
        mirostat_tau, mirostat_eta: the wanted surprise in bits, and how fast it is approached.
        samplers: the order of penalties, dry, top_n_sigma, top_k, typ_p, top_p, min_p, xtc and temperature, as names or
            as llama.cpp's letters; those left out are off. Temperature 0 picks the most likely token all the same.
        processors: functions ``(ids, logits)``, called for every token with all ids so far and a float32 array of all
            logits to change in place. An exception ends the request.
        seed: 0 .. 2**64 - 1. A token depends on seed, position and logits only. None draws one at
            random, which `Completion.params` reports.
        stop: strings that end the text where they appear; they are not part of it.
        banned: strings that the text must not contain: where one is complete, the answer goes back to the token in
            which it began and goes on with another one.
        max_tokens: most tokens to generate; None generates until the model ends or the context is full.
        logit_bias: token id -> number added to its logit; ``-inf`` forbids the token.
        ignore_eos: forbid the tokens that end a text.
        min_tokens: forbid them until so many tokens are generated.
        logprobs: log probabilities of the answer's tokens, each with so many of the likeliest ones in its place, 0 to
            20 (`TokenLogprob`); None leaves them out. They are the model's own, before all of the above.
        prompt_logprobs: the same for the tokens of the prompt.
        n: how many answers are written to one prompt, side by side. The seeds of further ones follow the given one.
        best_of: write so many, and return the `n` with the largest mean log probability, the best first.

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
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    top_n_sigma: float = 0.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    samplers: tuple[str, ...] = SAMPLERS
    processors: tuple[Callable[..., Any], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    max_tokens: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    best_of: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidRequestError(
                f"best_of must be at least n, the number of answers to return: got {self.best_of} for n = {self.n}"
            )

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
        if kwargs.get("logprobs") is True and kwargs.get("top_logprobs") is not None:
            del kwargs["logprobs"]  # OpenAI's chat has both
        resolved = resolve_keywords("sampling", kwargs, _CHECKS, ALIASES)
        changes = {name: value for name, value in resolved.items() if value is not None}
        return replace(self, **changes) if changes else self

    def seeded(self) -> SamplingParams:
        """These parameters with a seed: the given one, or one drawn at random."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))


_CHECKS: Mapping[str, Check] = {
    "temperature": number_in(0, math.inf, "a finite number, 0 (greedy) or more"),
    "top_k": integer_in(0, None, "a whole number, 0 (off) or more"),
    "top_p": number_in(0, 1, "a number from 0 to 1 (1 is off)"),
    "min_p": number_in(0, 1, "a number from 0 (off) to 1"),
    "repeat_penalty": number_in(0, math.inf, "a finite number above 0 (1 is off)", above_low=True),
    "repeat_last_n": integer_in(-1, None, "a whole number: -1 (all tokens), 0 (off) or more"),
    "frequency_penalty": number_in(-math.inf, math.inf, "a finite number (0 is off)"),
    "presence_penalty": number_in(-math.inf, math.inf, "a finite number (0 is off)"),
    "dry_multiplier": number_in(0, math.inf, "a finite number, 0 (off) or more"),
    "dry_base": number_in(0, math.inf, "a finite number, 0 or more (below 1 is off)"),
    "dry_allowed_length": integer_in(1, None, "a whole number, 1 or more"),
    "dry_penalty_last_n": integer_in(-1, None, "a whole number: -1 (all tokens), 0 (off) or more"),
    "dry_sequence_breakers": strings,
    "top_n_sigma": number_in(-1, math.inf, "a finite number (0 or -1 is off)"),
    "typical_p": number_in(0, 1, "a number from 0 to 1 (1 is off)"),
    "xtc_probability": number_in(0, 1, "a number from 0 (off) to 1"),
    "xtc_threshold": number_in(0, 1, "a number from 0 to 1 (above 0.5 is off)"),
    "dynatemp_range": number_in(0, math.inf, "a finite number, 0 (off) or more"),
    "dynatemp_exponent": number_in(0, math.inf, "a finite number, 0 or more"),
    "mirostat": integer_in(0, 2, "0 (off), 1 or 2"),
    "mirostat_tau": number_in(0, math.inf, "a finite number, 0 or more"),
    "mirostat_eta": number_in(0, math.inf, "a finite number, 0 or more"),
    "samplers": sampler_names,
    "processors": functions,
    "seed": integer_in(0, MAX_SEED, "a whole number from 0 to 2**64 - 1, or None (random)", optional=True),
    "stop": strings,
    "banned": strings,
    "max_tokens": integer_in(1, None, "a whole number, 1 or more, or None (no limit)", optional=True),
    "logit_bias": biases_by_id,
    "ignore_eos": flag,
    "min_tokens": integer_in(0, None, "a whole number, 0 or more"),
    "logprobs": logprob_count(MAX_LOGPROBS),
    "prompt_logprobs": logprob_count(MAX_LOGPROBS),
    "n": integer_in(1, MAX_ANSWERS, f"a whole number from 1 to {MAX_ANSWERS}"),
    "best_of": integer_in(
        1, MAX_ANSWERS, f"a whole number from 1 to {MAX_ANSWERS}, or None (n)", optional=True
    ),
}

assert tuple(_CHECKS) == tuple(item.name for item in fields(SamplingParams))

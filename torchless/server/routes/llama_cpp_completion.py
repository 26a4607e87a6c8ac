"""``/completion`` and ``/infill``: llama.cpp's continuation of a text, and of a text with a gap."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.requests import Request
from torchless.results import Completion, TokenLogprob
from torchless.server.answers import Answer, Answers
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.errors import ApiError
from torchless.server.openai_logprobs import MAX_TOP, chat_logprobs
from torchless.server.sampling_fields import sampling_keywords
from torchless.server.shapes import openai_error
from torchless.server.sse import event

__all__ = ["ROUTES", "CompletionFields", "InfillFields"]

# Fields about llama.cpp's slots, cache and timing, which the answer's text does not depend on.
_WITHOUT_EFFECT = frozenset(
    {"cache_prompt", "id_slot", "n_cache_reuse", "timings_per_token", "t_max_predict_ms"}
)
_ONLY: dict[str, tuple[Any, ...]] = {
    "n_keep": (0, -1),
    "n_probs": (0,),
    "min_keep": (0, 1),
    "lora": ([],),
    "post_sampling_probs": (False,),
    "response_fields": ([],),
    "n_indent": (0,),
    "input_extra": ([],),
}


class _Common(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    n_predict: int | None = None
    n_probs: int | None = None
    return_tokens: bool | None = None


class CompletionFields(_Common, kw_only=True):
    """Fields of a continuation that are not sampling parameters."""

    prompt: str | list[int]


class InfillFields(_Common, kw_only=True):
    """Fields of a gap that are not sampling parameters."""

    input_prefix: str
    input_suffix: str
    prompt: str = ""


async def completion(call: Call) -> ASGIApp:
    """Continues a text or token ids."""
    fields, others = decoded(call.body, CompletionFields)
    sampling = _sampling(fields, others)
    request = Request(fields.prompt, parse_special=isinstance(fields.prompt, str), **sampling)
    return await _reply(call, fields, request, fields.prompt)


async def infill(call: Call) -> ASGIApp:
    """Fills the gap between two texts; `prompt` stands at its beginning."""
    fields, others = decoded(call.body, InfillFields)
    sampling = _sampling(fields, others)
    request = Request(prefix=fields.input_prefix + fields.prompt, suffix=fields.input_suffix, **sampling)
    return await _reply(call, fields, request, fields.input_prefix + fields.prompt)


def _sampling(fields: _Common, others: dict[str, Any]) -> dict[str, Any]:
    for name in [*others]:
        if name in _WITHOUT_EFFECT:
            del others[name]
        elif name in _ONLY:
            value = others.pop(name)
            if value not in _ONLY[name]:
                message = f"{name}: {value!r:.80} is not supported; leave it out"
                raise ApiError(400, message, code="unsupported_field", param=name)
    if fields.n_predict is not None and fields.n_predict >= 0:
        others["n_predict"] = fields.n_predict
    if isinstance(others.get("logit_bias"), list):  # pairs of id and number
        others["logit_bias"] = _pairs(others["logit_bias"])
    sampling = sampling_keywords(others)
    if fields.n_probs:
        if not 0 < fields.n_probs <= MAX_TOP:
            message = f"n_probs: must be from 0 to {MAX_TOP}, got {fields.n_probs}"
            raise ApiError(400, message, code="invalid_value", param="n_probs")
        sampling["logprobs"] = fields.n_probs
    return sampling


def _pairs(biases: list[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for item in biases:
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not int:
            message = f"logit_bias: expected pairs of a token id and a number, got {item!r:.60}"
            raise ApiError(400, message, code="invalid_value", param="logit_bias")
        made[str(item[0])] = float("-inf") if item[1] is False else item[1]
    return made


async def _reply(call: Call, fields: _Common, request: Request, prompt: str | list[int]) -> ASGIApp:
    lease = await call.lease(fields.model)
    writer = _Writer(
        lease.name, prompt, with_tokens=bool(fields.return_tokens), with_probs=bool(fields.n_probs)
    )
    return await call.reply(lease, Answers.begin(lease.llm, [request]), writer, stream=bool(fields.stream))


class _Writer:
    """Writes an answer as llama.cpp's server does."""

    def __init__(self, model: str, prompt: str | list[int], *, with_tokens: bool, with_probs: bool) -> None:
        self._model, self._prompt = model, prompt
        self._with_tokens, self._with_probs = with_tokens, with_probs

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                if piece.text or piece.chunk.token_ids:
                    value = {
                        "index": 0,
                        "content": piece.text,
                        "tokens": list(piece.chunk.token_ids),
                        "stop": False,
                    }
                    yield event({**value, **self._probs(piece.chunk.logprobs)})
        last = self._facts(answers.answers[0])
        yield event({**last, "content": "", "tokens": []})

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        (answer,) = answers.answers
        done = answer.done
        tokens = list(done.token_ids) if self._with_tokens else []
        return {**self._facts(answer), "content": answer.text, "tokens": tokens, **self._probs(done.logprobs)}

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return event(openai_error(error))

    def _probs(self, tokens: tuple[TokenLogprob, ...] | None) -> dict[str, Any]:
        found = chat_logprobs(tokens) if self._with_probs else None
        return {} if found is None else {"completion_probabilities": found["content"]}

    def _facts(self, answer: Answer) -> dict[str, Any]:
        done = answer.done
        return {
            "index": 0,
            "id_slot": 0,
            "stop": True,
            "model": self._model,
            "prompt": self._prompt,
            "tokens_predicted": done.usage.num_completion_tokens,
            "tokens_evaluated": done.usage.num_prompt_tokens,
            "tokens_cached": done.usage.num_cached_tokens,
            "truncated": False,
            "stop_type": _stop_type(done),
            "stopping_word": done.stop or "",
            "generation_settings": _settings(done),
            "timings": _timings(done),
        }


def _stop_type(done: Completion) -> str:
    if done.finish_reason == "length":
        return "limit"
    return "word" if done.stop is not None else "eos"


def _settings(done: Completion) -> dict[str, Any]:
    values = asdict(done.params)
    del values["processors"]
    values["logit_bias"] = [[index, bias] for index, bias in values["logit_bias"].items()]
    return values


def _timings(done: Completion) -> dict[str, Any]:
    usage, timings = done.usage, done.timings
    return {
        "prompt_n": usage.num_prompt_tokens - usage.num_cached_tokens,
        "prompt_ms": timings.prefill_ms,
        "prompt_per_second": timings.prefill_tokens_per_second,
        "predicted_n": usage.num_completion_tokens,
        "predicted_ms": timings.decode_ms,
        "predicted_per_second": timings.decode_tokens_per_second,
    }


ROUTES = [
    post("/completion", completion, CompletionFields),
    post("/completions", completion, CompletionFields),
    post("/infill", infill, InfillFields),
]

"""``/v1/completions``: OpenAI's continuation of texts."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.llm import LLM
from torchless.requests import Request
from torchless.results import Completion
from torchless.server.answers import Answers, Piece
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.errors import ApiError
from torchless.server.openai_fields import take_fixed
from torchless.server.openai_logprobs import completion_logprobs
from torchless.server.openai_usage import FINGERPRINT, facts, finish_reason, usage
from torchless.server.routes.openai_chat import MAX_ANSWERS, StreamOptions
from torchless.server.sampling_fields import sampling_keywords, seeds
from torchless.server.shapes import openai_error
from torchless.server.sse import DONE, event

__all__ = ["ROUTES", "CompletionFields"]

DEFAULT_TOKENS = 16
"""Most tokens of a continuation where the request does not say, as in OpenAI's API."""
MAX_PROMPTS = 256


class CompletionFields(msgspec.Struct):
    """Fields of a completion request that are not sampling parameters."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None


async def completions(call: Call) -> ASGIApp:
    """Continues one or several texts."""
    fields, others = decoded(call.body, CompletionFields)
    take_fixed(others)
    sampling = sampling_keywords(others, tuple(CompletionFields.__struct_fields__))
    if not any(
        name in others for name in ("max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens")
    ):
        sampling["max_tokens"] = DEFAULT_TOKENS
    if fields.logprobs is not None:
        sampling["logprobs"] = fields.logprobs
        if fields.echo:
            sampling["prompt_logprobs"] = fields.logprobs
    prompts = _prompts(fields.prompt)
    count = 1 if fields.n is None else fields.n
    if count < 1 or count * len(prompts) > MAX_ANSWERS:
        message = (
            f"n: from 1 to {MAX_ANSWERS} answers may be asked for, got {count} of {len(prompts)} prompts"
        )
        raise ApiError(400, message, code="invalid_value", param="n")
    if fields.stream_options is not None and not fields.stream:
        raise ApiError(
            400, "stream_options: only a stream has them", code="invalid_value", param="stream_options"
        )
    lease = await call.lease(fields.model)
    with_usage = bool(fields.stream_options and fields.stream_options.include_usage)
    writer = CompletionWriter(lease.name, count, with_usage)

    async def begun() -> Answers:
        answers = await _begun(lease.llm, fields, prompts, seeds(sampling, count))
        if fields.echo:
            writer.echoes = [_text(lease.llm, prompt) for prompt in prompts for _ in range(count)]
        return answers

    return await call.reply(lease, begun(), writer, stream=bool(fields.stream))


async def _begun(
    llm: LLM, fields: CompletionFields, prompts: list[str | list[int]], keywords: list[dict[str, Any]]
) -> Answers:
    if fields.suffix is None:
        requests = [Request(prompt, **each) for prompt in prompts for each in keywords]
        return await Answers.begin(llm, requests)
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise ApiError(400, "suffix: its prompt must be a text", code="invalid_value", param="suffix")
    gaps = [
        Request(prefix=str(prompt), suffix=fields.suffix, **each) for prompt in prompts for each in keywords
    ]
    return await Answers.begin(llm, gaps)


def _prompts(given: str | list[Any]) -> list[str | list[int]]:
    """One prompt or several, each a text or token ids."""
    if isinstance(given, str):
        return [given]
    if given and all(type(item) is int for item in given):
        return [given]
    if not given or len(given) > MAX_PROMPTS:
        message = f"prompt: from 1 to {MAX_PROMPTS} prompts may be given, got {len(given)}"
        raise ApiError(400, message, code="invalid_value", param="prompt")
    for index, item in enumerate(given):
        is_ids = isinstance(item, list) and item and all(type(number) is int for number in item)
        if not isinstance(item, str) and not is_ids:
            message = f"prompt[{index}]: expected a text or a list of token ids, got {type(item).__name__}"
            raise ApiError(400, message, code="invalid_value", param=f"prompt[{index}]")
    return given


def _text(llm: LLM, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return llm.tokenizer.decode(prompt)


class CompletionWriter:
    """Writes answers as ``text_completion`` objects.

    Attributes:
        echoes: the prompts, where they shall stand before their answers.
    """

    def __init__(self, model: str, num_per_prompt: int, with_usage: bool) -> None:
        self._common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._num_per_prompt = num_per_prompt
        self._with_usage = with_usage
        self._offsets: dict[int, int] = {}
        self.echoes: list[str] = []

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        for index, text in enumerate(self.echoes):
            yield self._chunk(index, text)
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                completion = piece.chunk.completion
                if piece.text or piece.chunk.logprobs or completion is not None:
                    reason = None if completion is None else finish_reason(completion)
                    yield self._chunk(piece.index, piece.text, reason, self._logprobs(piece))
        if self._with_usage:
            counted = {
                "choices": [],
                "usage": usage(answers.answers, self._num_per_prompt),
                "torchless": facts(answers.answers),
            }
            yield event({**self._common, **counted})
        yield DONE

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        echoes = self.echoes or [""] * len(answers.answers)
        choices = [
            {
                "index": index,
                "text": echo + answer.text,
                "logprobs": self._all_logprobs(echo, answer.done),
                "finish_reason": finish_reason(answer.done),
            }
            for index, (echo, answer) in enumerate(zip(echoes, answers.answers, strict=True))
        ]
        counted = {"usage": usage(answers.answers, self._num_per_prompt), "torchless": facts(answers.answers)}
        return {**self._common, "choices": choices, **counted}

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return event(openai_error(error))

    def _logprobs(self, piece: Piece) -> Any:
        """Those of a piece, whose tokens' texts go on where the last piece's ended."""
        tokens = piece.chunk.logprobs
        if tokens is None:
            return None
        offset = self._offsets.get(piece.index, len(self.echoes[piece.index]) if self.echoes else 0)
        texts = [item.text for item in tokens]
        self._offsets[piece.index] = offset + sum(map(len, texts))
        return completion_logprobs(tokens, texts, offset)

    @staticmethod
    def _all_logprobs(echo: str, completion: Completion) -> Any:
        """Those of an answer, and of its prompt where that stands before it."""
        answer, prompt = completion.logprobs, completion.prompt_logprobs
        if answer is None or prompt is None:
            return completion_logprobs(answer, [item.text for item in answer or ()], len(echo))
        texts = ["" if item is None else item.text for item in (*prompt, *answer)]
        if prompt and prompt[0] is None:  # the first token is told by what the others leave of the text
            texts[0] = echo[: max(0, len(echo) - sum(map(len, texts[1 : len(prompt)])))]
        return completion_logprobs([*prompt, *answer], texts)

    def _chunk(self, index: int, text: str, reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        made = {**self._common, "choices": [choice]}
        return event({**made, "usage": None} if self._with_usage else made)


ROUTES = [post("/v1/completions", completions, CompletionFields)]

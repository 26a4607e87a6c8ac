"""Counts of tokens, and other facts about answers, as OpenAI's APIs write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchless import __version__
from torchless.results import Completion, FinishReason
from torchless.server.answers import Answer

__all__ = ["FINGERPRINT", "facts", "finish_reason", "usage"]

FINGERPRINT = f"torchless-{__version__}"

_REASONS: dict[FinishReason, str] = {"stop": "stop", "length": "length", "cancelled": "stop"}


def finish_reason(completion: Completion, *, has_calls: bool = False) -> str:
    """Why an answer ended."""
    reason = _REASONS[completion.finish_reason]
    return "tool_calls" if has_calls and reason == "stop" else reason


def usage(answers: Sequence[Answer], num_per_prompt: int | None = None) -> dict[str, Any]:
    """Tokens of prompts and of all answers to them, of which so many follow each prompt (None: all are to one)."""
    counts = [answer.done.usage for answer in answers]
    prompts = counts[:: num_per_prompt or len(counts)]
    num_prompt = sum(count.num_prompt_tokens for count in prompts)
    num_completion = sum(count.num_completion_tokens for count in counts)
    num_kept = sum(count.num_kept_tokens for count in counts)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_completion,
        "total_tokens": num_prompt + num_completion,
        "prompt_tokens_details": {"cached_tokens": sum(count.num_cached_tokens for count in prompts)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(answer.num_reasoning_tokens for answer in answers),
            "accepted_prediction_tokens": num_kept,
            "rejected_prediction_tokens": sum(count.num_drafted_tokens for count in counts) - num_kept,
        },
    }


def facts(answers: Sequence[Answer]) -> dict[str, Any]:
    """What torchless says beyond the API: seeds with which the answers come again, times, notes."""
    timings = answers[0].done.timings
    made: dict[str, Any] = {
        "seeds": [answer.done.params.seed for answer in answers],
        "temperature": answers[0].done.params.temperature,
        "time_to_first_token_ms": round(timings.time_to_first_token_ms, 3),
        "prefill_tokens_per_second": round(timings.prefill_tokens_per_second, 3),
        "decode_tokens_per_second": round(timings.decode_tokens_per_second, 3),
    }
    notes = [note for answer in answers for note in answer.notes]
    return {**made, "notes": notes} if notes else made

"""Log probabilities as OpenAI's APIs write them: one form for chats, an older one for continuations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torchless.results import TokenLogprob
from torchless.server.errors import ApiError

__all__ = ["chat_logprobs", "completion_logprobs", "wanted_logprobs"]

MAX_TOP = 20


def wanted_logprobs(logprobs: bool | None, top_logprobs: int | None) -> dict[str, int]:
    """The keyword for a request, of a chat's fields ``logprobs`` and ``top_logprobs``.

    Raises:
        ApiError: they are out of range, or the number without the wish.
    """
    if top_logprobs is not None and not logprobs:
        message = "top_logprobs: needs logprobs to be true"
        raise ApiError(400, message, code="invalid_value", param="top_logprobs")
    if top_logprobs is not None and not 0 <= top_logprobs <= MAX_TOP:
        message = f"top_logprobs: must be from 0 to {MAX_TOP}, got {top_logprobs}"
        raise ApiError(400, message, code="invalid_value", param="top_logprobs")
    return {"logprobs": top_logprobs or 0} if logprobs else {}


def chat_logprobs(tokens: Iterable[TokenLogprob] | None) -> dict[str, Any] | None:
    """The form of a chat's answers."""
    if tokens is None:
        return None
    content = [{**_token(item), "top_logprobs": [_token(other) for other in item.top]} for item in tokens]
    return {"content": content, "refusal": None}


def _token(item: TokenLogprob) -> dict[str, Any]:
    return {"token": item.text, "logprob": item.logprob, "bytes": list(item.token_bytes)}


def completion_logprobs(
    tokens: Sequence[TokenLogprob | None] | None, texts: Sequence[str], offset: int = 0
) -> dict[str, Any] | None:
    """The form of a continuation.

    Args:
        tokens: None for a token that follows nothing.
        texts: what each of them writes.
        offset: characters of the text before them.
    """
    if tokens is None:
        return None
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": list(texts),
        "token_logprobs": [None if item is None else item.logprob for item in tokens],
        "top_logprobs": [
            None if item is None else {other.text: other.logprob for other in (*item.top, item)}
            for item in tokens
        ],
        "text_offset": offsets,
    }

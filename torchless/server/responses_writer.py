"""Writes answers as OpenAI's Responses API does: items of output, or the events in which they grow."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from torchless.server.answers import Answer, Answers
from torchless.server.errors import ApiError
from torchless.server.openai_logprobs import chat_logprobs
from torchless.server.openai_usage import facts
from torchless.server.parts import Part, Reasoning, Text, ToolCall
from torchless.server.shapes import openai_error
from torchless.server.sse import event

__all__ = ["ResponseWriter"]


class ResponseWriter:
    """A `Writer` for one response.

    Args:
        model: its name.
        echoed: fields of the request that the response repeats.
        with_logprobs: the text has log probabilities.
    """

    def __init__(self, model: str, echoed: Mapping[str, Any], *, with_logprobs: bool) -> None:
        self._common = {
            "id": f"resp_{secrets.token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "error": None,
            "previous_response_id": None,
            "store": False,
            **echoed,
        }
        self._with_logprobs = with_logprobs
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._kind = ""  # of the item that is open

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        (answer,) = answers.answers
        begun = {
            **self._common,
            "status": "in_progress",
            "output": [],
            "incomplete_details": None,
            "usage": None,
        }
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                for part in piece.parts:
                    for item in self._add(part):
                        yield item
        if not self._items:
            for item in self._open("message"):
                yield item
        if self._with_logprobs and self._items[-1]["type"] == "message":
            self._items[-1]["content"][0]["logprobs"] = _logprobs(answer)
        for item in self._close():
            yield item
        done = self._response(answer)
        yield self._event(f"response.{done['status']}", response=done)

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        (answer,) = answers.answers
        if answer.reasoning:
            self._items.append(_item("reasoning", answer.reasoning))
        if answer.text or not answer.calls:
            self._items.append(_item("message", answer.text))
            if self._with_logprobs:
                self._items[-1]["content"][0]["logprobs"] = _logprobs(answer)
        self._items += [_call_item(call) for call in answer.calls]
        return self._response(answer)

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return self._event("error", **openai_error(error)["error"])

    def _response(self, answer: Answer) -> dict[str, Any]:
        is_cut = answer.finish_reason == "length"
        counts = answer.done.usage
        usage = {
            "input_tokens": counts.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": counts.num_cached_tokens},
            "output_tokens": counts.num_completion_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.num_reasoning_tokens},
            "total_tokens": counts.num_prompt_tokens + counts.num_completion_tokens,
        }
        return {
            **self._common,
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._items,
            "usage": usage,
            "torchless": facts([answer]),
        }

    # -- events -----------------------------------------------------------------------------------

    def _add(self, part: Part) -> list[bytes]:
        if isinstance(part, ToolCall):
            return [*self._close(), *self._call_events(part)]
        if not isinstance(part, Text | Reasoning):
            return []
        kind = "message" if isinstance(part, Text) else "reasoning"
        opened = [] if self._kind == kind else [*self._close(), *self._open(kind)]
        self._items[-1]["content"][0]["text"] += part.text
        name = "output_text" if kind == "message" else "reasoning_text"
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        return [*opened, self._event(f"response.{name}.delta", **self._place(), delta=part.text, **more)]

    def _open(self, kind: str) -> list[bytes]:
        item = _item(kind, "")
        self._kind = kind
        self._items.append(item)
        shown = {**item, "status": "in_progress", "content": []}
        part = {**item["content"][0]}
        index = len(self._items) - 1
        added = self._event("response.output_item.added", output_index=index, item=shown)
        return [added, self._event("response.content_part.added", **self._place(), part=part)]

    def _close(self) -> list[bytes]:
        if not self._kind:
            return []
        item = self._items[-1]
        part = item["content"][0]
        name = "output_text" if self._kind == "message" else "reasoning_text"
        more = {"logprobs": part.get("logprobs", [])} if self._kind == "message" else {}
        self._kind = ""
        return [
            self._event(f"response.{name}.done", **self._place(), text=part["text"], **more),
            self._event("response.content_part.done", **self._place(), part=part),
            self._event("response.output_item.done", output_index=len(self._items) - 1, item=item),
        ]

    def _call_events(self, call: ToolCall) -> list[bytes]:
        item = _call_item(call)
        self._items.append(item)
        place = {"output_index": len(self._items) - 1}
        named = {"item_id": item["id"], **place}
        shown = {**item, "status": "in_progress", "arguments": ""}
        name = "response.function_call_arguments"
        return [
            self._event("response.output_item.added", **place, item=shown),
            self._event(f"{name}.delta", **named, delta=call.arguments),
            self._event(f"{name}.done", **named, name=call.name, arguments=call.arguments),
            self._event("response.output_item.done", **place, item=item),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        made = event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1
        return made


def _item(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        content: list[dict[str, Any]] = [{"type": "reasoning_text", "text": text}]
        return {"type": "reasoning", "id": f"rs_{secrets.token_hex(12)}", "summary": [], "content": content}
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    common = {
        "type": "message",
        "id": f"msg_{secrets.token_hex(12)}",
        "role": "assistant",
        "status": "completed",
    }
    return {**common, "content": content}


def _call_item(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(12)}",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }


def _logprobs(answer: Answer) -> list[Any]:
    found = chat_logprobs(answer.done.logprobs)
    return found["content"] if found else []

"""A server that answers in a chat, over OpenAI's protocol: torchless's own, llama.cpp's, vLLM's, Ollama's, OpenAI's."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torchless.chat.partners import Piece, Progress, Question, Report
from torchless.chat.server_events import check_status, event_data, explained
from torchless.errors import InvalidRequestError, TorchlessError, UnsupportedError
from torchless.sampling.parameters import SamplingParams
from torchless.text.reasoning import ReasoningSplitter, find_style

__all__ = ["RemotePartner", "base_url"]

_CONNECT_SECONDS = 10.0
_SOCKET = "unix:"
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_FIELDS = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "max_tokens")
"""Sampling parameters that all servers know; others are sent under our names, and only if they were chosen."""
_EFFORTS = {"off": "none", "on": "medium", "low": "low", "medium": "medium", "high": "high"}
"""How much to think, in the protocol's words."""


def base_url(url: str) -> str:
    """The address in front of ``/chat/completions``; for ``unix:PATH``, of the server behind that socket.

    Raises:
        InvalidRequestError: not an HTTP address.

    >>> base_url("http://localhost:8080"), base_url("https://host/api/v1/chat/completions")
    ('http://localhost:8080/v1', 'https://host/api/v1')
    """
    if url.startswith(_SOCKET):
        return "http://localhost/v1"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequestError(f"--url takes an address such as http://localhost:8080, got {url!r}")
    base = url.rstrip("/")
    for ending in _ENDPOINTS:
        base = base.removesuffix(ending)
    return base if urlsplit(base).path.rsplit("/", 1)[-1].startswith("v") else f"{base}/v1"


class RemotePartner:
    """A model behind a server.

    Args:
        url: where the server is, with or without ``/v1``; or ``unix:PATH``, a socket on this machine.
        model: which of its models answers; None is the first that it lists.
        api_key: sent as a bearer token.

    Raises:
        UnsupportedError: httpx is not installed.
        TorchlessError: the server cannot be reached or refuses; the message says why.
    """

    is_remote = True

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        try:
            import httpx
        except ImportError:
            raise UnsupportedError(
                "talking to a server needs the package httpx: pip install 'torchless[chat]'"
            ) from None
        self._base = base_url(url)
        self._loop = _BackgroundLoop()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        path = str(Path(url.removeprefix(_SOCKET)).expanduser()) if url.startswith(_SOCKET) else None
        transport = httpx.AsyncHTTPTransport(uds=path) if path is not None else None
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, transport=transport)
        try:
            self._models = self._loop.run(self._list_models())
            self._model = self._chosen(model)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._model

    @property
    def defaults(self) -> SamplingParams:
        return SamplingParams()

    @property
    def context_length(self) -> int | None:
        for entry in self._models:
            if entry.get("id") == self._model:
                meta = entry.get("meta")
                known = {**entry, **(meta if isinstance(meta, dict) else {})}
                for field in ("max_model_len", "context_length", "n_ctx"):
                    if isinstance(known.get(field), int):
                        return int(known[field])
        return None

    def answer(self, question: Question) -> RemoteAnswer:
        return RemoteAnswer(self._loop, self._stream(self._body(question)))

    def prompt_text(self, question: Question) -> str:
        return json.dumps(self._body(question), indent=2, ensure_ascii=False)

    def check_thinking(self, thinking: str) -> None:
        if thinking not in _EFFORTS:
            raise InvalidRequestError(f"thinking is one of {', '.join(_EFFORTS)}, got {thinking!r}")

    def count_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        return None if messages else 0

    def describe(self) -> list[tuple[str, str]]:
        return [("model", self._model), ("server", self._base)]

    def switch(self, model: str, progress: Progress) -> list[str]:
        models = self._loop.run(self._list_models())
        before, self._models = self._models, models
        try:
            self._model = self._chosen(model)
        except BaseException:
            self._models = before
            raise
        return []

    def reload(self, progress: Progress, **changes: Any) -> list[str]:
        raise UnsupportedError(f"the server at {self._base} decides how its models are loaded")

    @property
    def templates(self) -> list[tuple[str, str]]:
        return [("in use", "the server's")]

    def use_template(self, name: str) -> str:
        raise UnsupportedError(f"the server at {self._base} decides which chat template is used")

    def close(self) -> None:
        self._loop.close(self._client.aclose())

    # -- requests ---------------------------------------------------------------------------------

    def _chosen(self, model: str | None) -> str:
        names = [str(entry["id"]) for entry in self._models if "id" in entry]
        if model is None:
            if not names:
                raise TorchlessError(
                    f"{self._base} lists no models; name one: torchless chat MODEL --url ..."
                )
            return names[0]
        if names and model not in names:
            raise InvalidRequestError(f"{self._base} has no model {model!r}, only {', '.join(names)}")
        return model

    def _body(self, question: Question) -> dict[str, Any]:
        """A question as JSON."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in question.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in sorted(question.chosen):
            value = getattr(question.params, name)
            if name == "logit_bias":
                body[name] = {str(token_id): bias for token_id, bias in value.items()}
            elif name in _FIELDS and value is None:
                continue  # no limit, or random: the server's way of saying so is to say nothing
            else:
                body[name] = list(value) if isinstance(value, tuple) else value
        if question.thinking is not None:
            body["reasoning_effort"] = _EFFORTS[question.thinking]
        return {**body, **_response_format(question.constraint)}

    async def _list_models(self) -> list[dict[str, Any]]:
        url = f"{self._base}/models"
        with explained(self._base):
            response = await self._client.get(url, timeout=_CONNECT_SECONDS)
            await check_status(response, url)
            content = response.json()
        found = content.get("data") if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise TorchlessError(f"{url} answered {str(content)[:80]!r}, expected a list of models")
        return [entry for entry in found if isinstance(entry, dict)]

    async def _stream(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The events of an answer."""
        url = f"{self._base}/chat/completions"
        with explained(self._base):
            async with self._client.stream("POST", url, json=body) as response:
                await check_status(response, url)
                async for event in event_data(response, url):
                    yield event


def _response_format(constraint: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer must match, as servers are told so."""
    if not constraint:
        return {}
    ((name, value),) = constraint.items()
    if name == "json":
        return {"response_format": {"type": "json_object"}}
    if name == "schema":
        schema = json.loads(value) if isinstance(value, str) else value
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            }
        }
    raise UnsupportedError(
        f"OpenAI's protocol has no {name}; a server takes --json and --json-schema, a model of your own takes all"
    )


class RemoteAnswer:
    """An answer of a server; see `partners.Answer`. The connection belongs to the background loop's thread."""

    def __init__(self, loop: _BackgroundLoop, events: AsyncIterator[dict[str, Any]]) -> None:
        self.num_tokens = 0
        self.report: Report | None = None
        self._news: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._splitter = ReasoningSplitter(find_style(None))  # for servers that leave it in the text
        self._usage: dict[str, Any] = {}
        self._finish_reason = "stop"
        self._asked_at = time.perf_counter()
        self._first_at = self._last_at = self._asked_at
        self._reading = loop.start(self._read(events))
        self._reading.add_done_callback(lambda _: self._news.put(None))

    def __iter__(self) -> Iterator[Piece]:
        while (piece := self._news.get()) is not None:
            yield piece
        if self._reading.cancelled():
            self._finish_reason = "cancelled"
        else:
            self._reading.result()  # raises what ended it
        for span in self._splitter.flush():
            yield Piece(span.text, span.is_reasoning)
        self.report = self._make_report()

    def cancel(self) -> None:
        self._reading.cancel()

    async def _read(self, events: AsyncIterator[dict[str, Any]]) -> None:
        async for event in events:
            usage = event.get("usage")
            if isinstance(usage, dict):
                self._usage = usage
            for choice in event.get("choices") or ():
                if choice.get("finish_reason"):
                    self._finish_reason = str(choice["finish_reason"])
                delta = choice.get("delta") or {}
                self._take(delta.get("reasoning_content") or delta.get("reasoning"), delta.get("content"))

    def _take(self, reasoning: object, content: object) -> None:
        pieces = [Piece(reasoning, True)] if isinstance(reasoning, str) and reasoning else []
        if isinstance(content, str) and content:
            pieces += [Piece(span.text, span.is_reasoning) for span in self._splitter.push(content)]
        elif not pieces:
            return
        self._last_at = time.perf_counter()
        if not self.num_tokens:
            self._first_at = self._last_at
        self.num_tokens += 1
        for piece in pieces:
            self._news.put(piece)

    def _make_report(self) -> Report:
        prompt, answer = self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
        details = self._usage.get("prompt_tokens_details")
        num_tokens = answer if isinstance(answer, int) else self.num_tokens
        seconds = self._last_at - self._first_at
        return Report(
            finish_reason=self._finish_reason,
            num_prompt_tokens=prompt if isinstance(prompt, int) else None,
            num_completion_tokens=num_tokens if self.num_tokens or answer is not None else None,
            tokens_per_second=(num_tokens - 1) / seconds if seconds > 0 and num_tokens > 1 else 0.0,
            first_token_ms=(self._first_at - self._asked_at) * 1000,
            num_cached_tokens=details.get("cached_tokens") if isinstance(details, dict) else None,
        )


class _BackgroundLoop:
    """An event loop on a thread of its own: a connection that can be given up from any thread at any time."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="torchless-chat", daemon=True)
        self._thread.start()

    def start(self, work: Any) -> Any:
        """Runs a coroutine; returns its `concurrent.futures.Future`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Any) -> Any:
        """Waits for a coroutine. Ctrl-C gives it up."""
        running = self.start(work)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def close(self, last_work: Any) -> None:
        """Runs a last coroutine and ends the thread. Idempotent."""
        if self._loop.is_closed():
            last_work.close()
            return
        self.run(last_work)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

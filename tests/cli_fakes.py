"""A model that answers what it was told to, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import CancelledError
from typing import Any

from torchless.errors import ContextLengthError
from torchless.requests import Request
from torchless.results import Chunk, Completion, Timings, Usage
from torchless.sampling.parameters import SamplingParams
from torchless.text.tokenizer import Tokenizer

CONSTRAINTS = ("json", "schema", "regex", "grammar", "choices")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def make_tokenizer(template: str | None) -> Tokenizer:
    """A token for each byte, and for begin and end."""
    num_bytes = 256
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(num_bytes))],
        "tokenizer.ggml.scores": [0.0] * (3 + num_bytes),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * num_bytes],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    return Tokenizer.from_metadata(metadata)


class FakeFuture:
    """Follows `torchless.Future`: iterates, and can be cancelled."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = chunks
        self.is_cancelled = False

    def __iter__(self):
        for chunk in self._chunks:
            if self.is_cancelled:
                raise CancelledError
            yield chunk

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True


class FakeLLM:
    """Follows the part of `torchless.LLM` that the command line uses.

    Args:
        answers: pieces of text for each request, the last one again and again; an exception among the
            pieces is raised there, and a function is called.
        has_template: whether the tokenizer has a chat template, `template`.
    """

    file_speed = None

    def __init__(
        self,
        answers: Iterable[Iterable[Any]] = (["Hello", " there"],),
        *,
        has_template: bool = False,
        template: str = TEMPLATE,
    ):
        self.answers = [list(pieces) for pieces in answers]
        self.tokenizer = make_tokenizer(template if has_template else None)
        self.defaults = SamplingParams()
        self.context_length = 64
        self.loaded_with: dict[str, Any] = {}
        self.requests: list[tuple[str, Any, dict[str, Any]]] = []  # (method, prompt or messages, keywords)
        self.finish_reason = "stop"
        self.too_long = False
        self.is_closed = False
        self.more_info: dict[str, Any] = {}

    @property
    def info(self) -> dict[str, Any]:
        return {
            "path": "fake.gguf",
            "name": "fake",
            "backend": "reference",
            "num_threads": 1,
            "kv_type": "f16",
            "activations": "int8",
            "fast": False,
            "memory_bytes": {"weights": 1_000_000},
            "vocab_size": 259,
            **self.more_info,
        }

    def load(self, model: Any, **keywords: Any) -> FakeLLM:
        self.loaded_with = {"model": model, **keywords}
        return self

    def stream(self, prompt: str, **keywords: Any):
        return self._stream("stream", prompt, keywords)

    def stream_chat(self, messages: list[dict[str, str]], **keywords: Any):
        return self._stream("stream_chat", [dict(message) for message in messages], keywords)

    def submit(self, request: Request) -> FakeFuture:
        self.last_request = request
        asked = (
            request.prompt if request.messages is None else [dict(message) for message in request.messages]
        )
        keywords = {"params": request.params, **request.sampling}
        return FakeFuture(self._stream("submit", asked, keywords))

    def stream_infill(self, prefix: str, suffix: str, *, order: str | None, **keywords: Any):
        return self._stream("stream_infill", (prefix, suffix, order), keywords)

    def _stream(self, method: str, prompt: Any, keywords: dict[str, Any]):
        params = keywords.get("params") or self.defaults
        sampling = {k: v for k, v in keywords.items() if k not in ("params", "logits_hash", *CONSTRAINTS)}
        params = params.updated(**sampling).seeded()
        self.requests.append((method, prompt, keywords))
        if self.too_long:
            raise ContextLengthError(99, self.context_length)
        pieces = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return self._chunks(pieces, params, bool(keywords.get("logits_hash")))

    def _chunks(self, pieces: list[Any], params: SamplingParams, with_hash: bool):
        text = ""
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            if callable(piece):
                piece()
                continue
            text += piece
            yield Chunk(piece, (5,))
        completion = Completion(
            text=text,
            token_ids=(5,) * len(pieces),
            finish_reason=self.finish_reason,
            usage=Usage(3, len(pieces)),
            timings=Timings(10.0, 20.0, 12.5, 300.0, 100.0),
            params=params,
            logits_hash="0123456789abcdef" if with_hash else "",
        )
        yield Chunk("", (), self.finish_reason, completion)

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

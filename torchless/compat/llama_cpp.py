"""llama-cpp-python's class `Llama` on torchless: the same methods, arguments and dictionaries.

Defaults are that library's where they differ from ours: 16 tokens of a completion, temperature 0.2 in a chat.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from torchless.compat.in_process import InProcessTransport
from torchless.errors import InvalidRequestError, UnsupportedError
from torchless.hub.selection import quant_of
from torchless.llm import LLM, load
from torchless.server.application import app

__all__ = ["Llama"]

_log = logging.getLogger("torchless")

# The library's numbers of formats of the cache -> ours.
_KV_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 8: "q8_0", 30: "bf16"}
# Arguments of that class that choose how it is computed or what is printed, not what comes out.
_WITHOUT_EFFECT = frozenset(
    {
        *(
            "verbose",
            "use_mmap",
            "use_mlock",
            "numa",
            "offload_kqv",
            "flash_attn",
            "main_gpu",
            "tensor_split",
        ),
        *(
            "n_ubatch",
            "n_threads_batch",
            "split_mode",
            "logits_all",
            "last_n_tokens_size",
            "op_offload",
            "swa_full",
        ),
    }
)


class Llama:
    """A model, as llama-cpp-python has it.

    Example:
        llama = Llama("model.gguf", n_ctx=2048)
        print(llama("Once upon a time", max_tokens=32)["choices"][0]["text"])
        llama.close()
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        *,
        n_ctx: int = 512,
        n_threads: int | None = None,
        n_batch: int = 512,
        n_gpu_layers: int = 0,
        seed: int | None = None,
        embedding: bool = False,
        lora_path: str | None = None,
        lora_scale: float = 1.0,
        chat_format: str | None = None,
        type_k: int | None = None,
        type_v: int | None = None,
        **others: Any,
    ) -> None:
        """Loads a model; None is the built-in one. `n_ctx` 0 is what the model was trained for.

        Raises:
            UnsupportedError: an argument asks for what is not done here; the message names it.
            TorchlessError: as `torchless.load`.
        """
        unknown = sorted(name for name in others.keys() - _WITHOUT_EFFECT if others[name] is not None)
        if unknown:
            raise UnsupportedError(f"Llama(): {unknown[0]} is not supported; leave it out")
        if chat_format is not None:
            raise UnsupportedError("Llama(): chat_format is not supported; the model's own template is used")
        if n_gpu_layers:
            _log.warning("Llama(): n_gpu_layers is %s, but all layers are computed on the CPU", n_gpu_layers)
        for name, number in (("type_k", type_k), ("type_v", type_v)):
            if number is not None and number not in _KV_TYPES:
                raise UnsupportedError(f"Llama(): {name} must be one of {_KV_TYPES}, got {number}")
        options: dict[str, Any] = {
            "kv": f"k={_KV_TYPES[1 if type_k is None else type_k]},v={_KV_TYPES[1 if type_v is None else type_v]}",
            "ctx": n_ctx or "auto",
            "threads": "auto" if n_threads is None else n_threads,
            "batch_tokens": n_batch,
        }
        if lora_path is not None:
            options["lora"] = (lora_path, lora_scale)
        if embedding:
            options["task"] = "embed"
        self.model_path = model_path
        self._seed = None if seed in (None, -1, 0xFFFFFFFF) else seed
        self._llm: LLM = load(model_path, **options)
        self._transport = InProcessTransport(app(self._llm))
        self._http = httpx.Client(transport=self._transport, base_url="http://in-process", timeout=None)

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: str | None = None, **options: Any) -> Llama:
        """A model of the Hugging Face hub; `filename` names the file or has a ``*`` before the recipe."""
        if filename is None:
            return cls(repo_id, **options)
        choice = quant_of(filename.replace("*", "-")) if "*" in filename else filename
        if not choice:
            raise InvalidRequestError(f"filename {filename!r} names no recipe, such as '*Q4_K_M.gguf'")
        return cls(f"{repo_id}:{choice}", **options)

    # -- texts ------------------------------------------------------------------------------------

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        *,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """Continues a text: OpenAI's dictionary, or an iterator of such with `stream`."""
        body: dict[str, Any] = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "suffix": suffix,
        }
        return self._ask("/v1/completions", body, max_tokens, stream, options)

    __call__ = create_completion

    def create_chat_completion(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        temperature: float = 0.2,
        max_tokens: int | None = None,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """Answers a conversation: OpenAI's dictionary, or an iterator of such with `stream`."""
        body = {"messages": list(messages), "temperature": temperature}
        return self._ask("/v1/chat/completions", body, max_tokens, stream, options)

    def create_embedding(self, input: str | list[str], model: str | None = None) -> Any:  # noqa: A002
        """Vectors of texts, in OpenAI's dictionary; for a model that was loaded with ``embedding=True``."""
        return self._value(self._http.post("/v1/embeddings", json={"input": input}))

    def embed(self, input: str | list[str], normalize: bool = False) -> Any:  # noqa: A002
        """Vectors of texts."""
        vectors = self._llm.embed(input, normalize=normalize)
        return vectors.tolist()

    # -- tokens -----------------------------------------------------------------------------------

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text in UTF-8."""
        return self._llm.tokenizer.encode(text.decode(), add_special_tokens=add_bos, parse_special=special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> bytes:
        """The bytes of token ids."""
        return b"".join(self._llm.tokenizer.token_bytes(index, special=special) for index in tokens)

    def n_ctx(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._llm.context_length

    def n_vocab(self) -> int:
        """Number of tokens."""
        return self._llm.tokenizer.vocab_size

    def n_embd(self) -> int:
        """Width of the vectors."""
        return self._llm.config.embedding_length

    def token_bos(self) -> int:
        """The begin token, -1 without one."""
        return -1 if self._llm.tokenizer.bos_id is None else self._llm.tokenizer.bos_id

    def token_eos(self) -> int:
        """The end token, -1 without one."""
        return -1 if self._llm.tokenizer.eos_id is None else self._llm.tokenizer.eos_id

    @property
    def metadata(self) -> dict[str, str]:
        """What the model is, as texts."""
        return {name: str(value) for name, value in self._llm.info.items()}

    # -- the rest ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees everything. Idempotent."""
        self._http.close()
        self._transport.close()
        self._llm.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _ask(
        self, path: str, body: dict[str, Any], max_tokens: int | None, stream: bool, options: dict[str, Any]
    ) -> Any:
        given = {name: value for name, value in options.items() if value is not None and name != "model"}
        unlimited = max_tokens is None or max_tokens <= 0
        limit = {"max_tokens": self._llm.context_length if unlimited else max_tokens}
        seed = {} if self._seed is None else {"seed": self._seed}
        body = {**seed, **body, **limit, **given, "stream": stream}
        if stream:
            return self._events(path, body)
        return self._value(self._http.post(path, json=body))

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        with self._http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                self._value(answer)
            for line in answer.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])

    @staticmethod
    def _value(answer: httpx.Response) -> Any:
        value = answer.json()
        if answer.status_code != 200:
            raise InvalidRequestError(value["error"]["message"])
        return value

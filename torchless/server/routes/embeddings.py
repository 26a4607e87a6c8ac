"""``/v1/embeddings`` (OpenAI's) and ``/v1/rerank`` (Jina's and Cohere's): texts to vectors, documents to scores."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.types import ASGIApp

from torchless.llm import LLM
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.errors import ApiError
from torchless.server.openai_fields import take_fixed
from torchless.server.shapes import json_response

__all__ = ["ROUTES", "EmbeddingFields", "RerankFields", "embedded", "refuse_others"]

MAX_TEXTS = 2048


class EmbeddingFields(msgspec.Struct):
    """Fields of an embedding request."""

    input: str | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    truncate: bool | None = None
    normalize: bool | None = None


async def embeddings(call: Call) -> ASGIApp:
    """Vectors of texts."""
    fields, others = decoded(call.body, EmbeddingFields)
    take_fixed(others)
    refuse_others(others)
    texts = _texts(fields.input)
    lease = await call.lease(fields.model, "embed")
    try:
        options = {
            "dimensions": fields.dimensions,
            "truncate": bool(fields.truncate),
            "normalize": fields.normalize,
        }
        vectors, num_tokens = await call.while_connected(embedded(lease.llm, texts, **options))
    finally:
        lease.release()
    call.log["num_prompt_tokens"] = num_tokens
    make = _base64 if fields.encoding_format == "base64" else _numbers
    data = [
        {"object": "embedding", "index": index, "embedding": make(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return json_response({"object": "list", "data": data, "model": lease.name, "usage": usage})


async def embedded(
    llm: LLM, texts: Sequence[str | list[int]], **options: Any
) -> tuple[npt.NDArray[np.float32], int]:
    """Vectors of texts, and how many tokens these have. Computed beside the event loop."""

    def work() -> tuple[npt.NDArray[np.float32], int]:
        vectors = llm.embed(texts, **options)
        lengths = [len(llm.tokenizer.encode(text)) if isinstance(text, str) else len(text) for text in texts]
        return vectors, sum(min(length, llm.context_length) for length in lengths)

    return await asyncio.to_thread(work)


def _texts(given: str | list[Any]) -> list[str | list[int]]:
    """One text or several, each as such or as token ids."""
    if isinstance(given, str) or (given and all(type(item) is int for item in given)):
        given = [given]
    if not given or len(given) > MAX_TEXTS:
        message = f"input: from 1 to {MAX_TEXTS} texts may be given, got {len(given)}"
        raise ApiError(400, message, code="invalid_value", param="input")
    for index, item in enumerate(given):
        is_ids = isinstance(item, list) and item and all(type(number) is int for number in item)
        if not isinstance(item, str) and not is_ids:
            message = f"input[{index}]: expected a text or a list of token ids, got {type(item).__name__}"
            raise ApiError(400, message, code="invalid_value", param=f"input[{index}]")
    return given


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _numbers(vector: npt.NDArray[np.float32]) -> list[float]:
    return [float(str(value)) for value in vector]  # the shortest digits that are this float32


class RerankFields(msgspec.Struct):
    """Fields of a rerank request."""

    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    truncate: bool | None = None


async def rerank(call: Call) -> ASGIApp:
    """Documents in the order in which they answer a query."""
    fields, others = decoded(call.body, RerankFields)
    refuse_others(others)
    documents = []
    for index, item in enumerate(fields.documents):
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            message = f"documents[{index}]: expected a text"
            raise ApiError(400, message, code="invalid_value", param=f"documents[{index}]")
        documents.append(text)
    if not documents or len(documents) > MAX_TEXTS:
        message = f"documents: from 1 to {MAX_TEXTS} may be given, got {len(documents)}"
        raise ApiError(400, message, code="invalid_value", param="documents")
    lease = await call.lease(fields.model, "rerank")
    try:
        work = asyncio.to_thread(
            lease.llm.rerank,
            fields.query,
            documents,
            top_n=fields.top_n,
            instruction=fields.instruction,
            truncate=bool(fields.truncate),
        )
        ranked = await call.while_connected(work)
    finally:
        lease.release()
    results: list[dict[str, Any]] = [{"index": item.index, "relevance_score": item.score} for item in ranked]
    if fields.return_documents:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    return json_response({"object": "list", "model": lease.name, "results": results})


def refuse_others(others: dict[str, Any], allowed: Sequence[str] = ()) -> None:
    """Refuses a field that an API does not have. Raises ApiError."""
    for name in others:
        if name not in allowed:
            message = f"{name:.100}: no such field; docs/server.md lists what there is"
            raise ApiError(400, message, code="unknown_field", param=name[:100])


ROUTES = [
    post("/v1/embeddings", embeddings, EmbeddingFields),
    post("/v1/rerank", rerank, RerankFields),
    post("/rerank", rerank, RerankFields),
]

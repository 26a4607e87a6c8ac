"""The parts of a model that is ready to run, and what they say about themselves."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torchless.backends.base import Executor
from torchless.engine.pacing import StepPacing
from torchless.engine.page_store import PageStore
from torchless.engine.speculation import Speculation
from torchless.file_speed import FileSpeed
from torchless.models import ModelConfig
from torchless.plan import Plan
from torchless.sampling.parameters import SamplingParams
from torchless.text.tokenizer import Tokenizer
from torchless.weights.source import WeightSource

__all__ = ["LoadedModel"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The parts of a model that is ready to run. `draft` is a second model that drafts for it."""

    source: WeightSource
    plan: Plan
    config: ModelConfig
    tokenizer: Tokenizer
    executor: Executor
    backend: str
    context_length: int
    chat_template: str | None
    defaults: SamplingParams
    adapters: tuple[dict[str, Any], ...] = ()
    lazy: FileSpeed | None = None
    draft: LoadedModel | None = None
    speculation: Speculation | None = None
    pacing: StepPacing | None = None
    has_prefix_cache: bool = False
    page_store: PageStore | None = None

    def describe(self) -> dict[str, Any]:
        """What was loaded, as plain values."""
        options, tensors = self.executor.options, self.source.tensors.values()
        return {
            "path": str(self.source.path),
            "format": self.source.format,
            "architecture": str(self.source.metadata.get("general.architecture", "")),
            "name": str(self.source.metadata.get("general.name", "")),
            "num_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
            "file_bytes": sum(tensor.num_bytes for tensor in tensors),
            "tensor_types": dict(Counter(tensor.type for tensor in tensors)),
            "vocab_size": self.executor.vocab_size,
            "context_length": self.context_length,
            "makes": {"logits": "text", "states": "embeddings", "scores": "scores"}[self.plan.output_kind],
            "trained_context_length": self.config.context_length,
            "backend": self.backend,
            "num_threads": options.num_threads,
            "cpus": list(options.cpus),
            "kv_type": options.kv_type,
            "activations": options.activations,
            "fast": options.fast,
            "num_pages": options.num_pages,
            "num_state_slots": self.executor.num_state_slots,
            "batch_tokens": options.max_batch_tokens,
            "adapters": list(self.adapters),
            "lazy": None if self.lazy is None else self.lazy.json(),
            "speculation": None if self.speculation is None else self.speculation.describe(),
            "pacing": "off" if self.pacing is None else self.pacing.slowdown,
            "prefix_cache": self.has_prefix_cache,
            "prefix_cache_dir": None if self.page_store is None else str(self.page_store.folder),
            "draft_model": None if self.draft is None else str(self.draft.source.path),
        }

    def close(self) -> None:
        """Frees everything."""
        try:
            if self.page_store is not None:
                self.page_store.close()
            if self.speculation is not None:
                self.speculation.close()
            if self.draft is not None:
                self.draft.close()
        finally:
            try:
                self.executor.close()
            finally:
                self.source.close()

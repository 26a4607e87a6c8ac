"""torchless: large language models without PyTorch. Public names only; everything loads on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchless.conversion.convert import convert
    from torchless.errors import (
        ContextLengthError,
        FormatError,
        GrammarError,
        InvalidRequestError,
        ModelNotFoundError,
        OutOfMemoryError,
        TemplateError,
        TokenizerError,
        TorchlessError,
        UnsupportedError,
    )
    from torchless.futures import Future
    from torchless.llm import LLM, load
    from torchless.metrics import Histogram, Metrics
    from torchless.planning.forecast import plan_model
    from torchless.quality.comparison import compare
    from torchless.quality.perplexity import perplexity
    from torchless.quality.verification import verify
    from torchless.quantization.importance_run import imatrix
    from torchless.quantization.quantize import quantize
    from torchless.requests import Request
    from torchless.results import Chunk, Completion, Ranked, Timings, TokenLogprob, Usage
    from torchless.sampling.parameters import SamplingParams
    from torchless.session import Session

__version__ = "0.1.0"

# Public name -> module that defines it.
_EXPORTS = {
    "LLM": "torchless.llm",
    "load": "torchless.llm",
    "Future": "torchless.futures",
    "Histogram": "torchless.metrics",
    "Metrics": "torchless.metrics",
    "Request": "torchless.requests",
    "convert": "torchless.conversion.convert",
    "compare": "torchless.quality.comparison",
    "perplexity": "torchless.quality.perplexity",
    "plan_model": "torchless.planning.forecast",
    "verify": "torchless.quality.verification",
    "Chunk": "torchless.results",
    "Completion": "torchless.results",
    "Ranked": "torchless.results",
    "Timings": "torchless.results",
    "TokenLogprob": "torchless.results",
    "Usage": "torchless.results",
    "SamplingParams": "torchless.sampling.parameters",
    "Session": "torchless.session",
    "imatrix": "torchless.quantization.importance_run",
    "quantize": "torchless.quantization.quantize",
    "ContextLengthError": "torchless.errors",
    "FormatError": "torchless.errors",
    "GrammarError": "torchless.errors",
    "InvalidRequestError": "torchless.errors",
    "ModelNotFoundError": "torchless.errors",
    "OutOfMemoryError": "torchless.errors",
    "TemplateError": "torchless.errors",
    "TokenizerError": "torchless.errors",
    "TorchlessError": "torchless.errors",
    "UnsupportedError": "torchless.errors",
}

__all__ = [
    "LLM",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "FormatError",
    "Future",
    "GrammarError",
    "Histogram",
    "InvalidRequestError",
    "Metrics",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Ranked",
    "Request",
    "SamplingParams",
    "Session",
    "TemplateError",
    "Timings",
    "TokenLogprob",
    "TokenizerError",
    "TorchlessError",
    "UnsupportedError",
    "Usage",
    "__version__",
    "compare",
    "convert",
    "imatrix",
    "load",
    "perplexity",
    "plan_model",
    "quantize",
    "verify",
]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'torchless' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

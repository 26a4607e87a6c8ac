"""Measures an importance matrix: runs a model over a text and watches what goes into its matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS, Batch, ExecutorOptions
from torchless.backends.reference import ReferenceExecutor
from torchless.errors import InvalidRequestError
from torchless.models import record_plan
from torchless.processors import usable_cores
from torchless.quality.perplexity import chunks_of, text_ids
from torchless.quantization.importance import ImportanceMatrix
from torchless.quants import Floats
from torchless.text.tokenizer import Tokenizer
from torchless.weights.open import open_source
from torchless.weights.source import WeightSource

__all__ = ["imatrix"]

Progress = Callable[[int, int], None]
"""Called after each chunk with the chunks done and all chunks."""


def imatrix(
    model: str | Path,
    text: str,
    *,
    context: int = 512,
    max_chunks: int | None = None,
    dataset: str = "",
    process_output: bool = False,
    progress: Progress | None = None,
) -> ImportanceMatrix:
    """Mean squared activations of the input columns of every matrix, over a text in chunks of `context` tokens.

    The forward pass is that of the reference backend: float64, without rounded activations, at the speed of NumPy.
    It holds the weights as float64.

    Args:
        model: a GGUF file or a Hugging Face folder.
        text: what the model shall be good at; some hundred kilobytes are plenty.
        max_chunks: stop after so many chunks.
        dataset: the text's name, written into the file.
        process_output: watch the output projection too.

    Raises:
        InvalidRequestError: the text is shorter than one chunk.

    Example:
        >>> import torchless
        >>> from torchless.loading import BUILT_IN_MODEL
        >>> matrix = torchless.imatrix(BUILT_IN_MODEL, "Once upon a time there was a cat. " * 4, context=16)
        >>> matrix.means["blk.0.attn_q.weight"].shape[0]
        1
    """
    source = open_source(model)
    try:
        plan, config = record_plan(source)
        if context > config.context_length:
            raise InvalidRequestError(
                f"chunks of {context} tokens do not fit the model's context of {config.context_length}; "
                f"choose shorter chunks"
            )
        ids, bos_id = text_ids(_tokenizer(source), text)
        chunks = [chunk.ids for chunk in chunks_of(ids, context, bos_id, max_chunks)]
        num_pages = -(-context // PAGE_TOKENS)
        executor = ReferenceExecutor(plan, source, ExecutorOptions(num_pages, context, 1, usable_cores()))
        sums = _Sums(skipped=None if process_output else plan.ops[-1])
        executor.observe_input = sums.add
        for done, chunk in enumerate(chunks, 1):
            executor.step(_whole(chunk, num_pages))
            executor.release_pages(np.arange(num_pages, dtype=np.int32))
            if progress is not None:
                progress(done, len(chunks))
        executor.close()
        return sums.matrix(len(chunks), context, dataset)
    finally:
        source.close()


class _Sums:
    """Squared inputs of each matrix, summed up."""

    def __init__(self, skipped: object) -> None:
        self._skipped = getattr(skipped, "weight", None)
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._rows: dict[str, int] = {}

    def add(self, name: str, x: npt.NDArray[np.float64]) -> None:
        """Counts input rows (n, in) of the matrix `name`."""
        if name == self._skipped:
            return
        squares = np.einsum("nc,nc->c", x, x)
        self._squares[name] = self._squares[name] + squares if name in self._squares else squares
        self._rows[name] = self._rows.get(name, 0) + len(x)

    def matrix(self, chunks: int, context: int, dataset: str) -> ImportanceMatrix:
        """The means."""
        means: dict[str, Floats] = {
            name: (squares / self._rows[name]).astype(np.float32).reshape(1, -1)
            for name, squares in self._squares.items()
        }
        counts = {name: np.array([rows], np.float32) for name, rows in self._rows.items()}
        return ImportanceMatrix(means, counts, chunks, context, (dataset,) if dataset else ())


def _whole(ids: Sequence[int], num_pages: int) -> Batch:
    """One sequence from an empty context."""

    def ints(values: Sequence[int] | range) -> npt.NDArray[np.int32]:
        return np.array(values, np.int32)

    n = len(ids)
    pages = ints(range(num_pages)), ints([0, num_pages])
    return Batch(ints(ids), ints(range(n)), ints([0, n]), *pages, ints([n - 1]), ints([0]))


def _tokenizer(source: WeightSource) -> Tokenizer:
    if source.format == "safetensors":
        return Tokenizer.from_folder(source.path if source.path.is_dir() else source.path.parent)
    return Tokenizer.from_metadata(source.metadata)

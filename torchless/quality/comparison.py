"""How far one model is from another: what they predict, and their weights, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchless.errors import InvalidRequestError
from torchless.quality.perplexity import DEFAULT_CONTEXT, chunks_of, log_probabilities, text_ids
from torchless.quants import by_name

if TYPE_CHECKING:
    from torchless.llm import LLM
    from torchless.weights.source import WeightSource

__all__ = ["ComparisonResult", "Estimate", "TensorDifference", "compare", "compare_tensors"]

_ROWS = 32  # rows of logits at once: float64 copies of a large vocabulary take a megabyte each
_SLICE_WEIGHTS = 1 << 22

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tokens with its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """What model `b` predicts, measured against model `a`.

    Attributes:
        num_tokens: tokens at which the predictions were compared.
        perplexity_a, perplexity_b: perplexity of the text under each.
        perplexity_ratio: b's over a's; its error is far smaller than those of the two, which move together.
        divergence: Kullback-Leibler divergence of b's distribution from a's, in nats.
        divergence_median, divergence_99, divergence_max: over the tokens.
        top1_agreement: share of tokens at which both find the same token likeliest.
        probability_rms: root mean square difference of the probability of the text's own token.
    """

    num_tokens: int
    perplexity_a: Estimate
    perplexity_b: Estimate
    perplexity_ratio: Estimate
    divergence: Estimate
    divergence_median: float
    divergence_99: float
    divergence_max: float
    top1_agreement: Estimate
    probability_rms: float


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that both files have.

    Attributes:
        relative_error: norm of the difference over the norm of a's tensor.
        largest_error: largest difference of one weight.
    """

    name: str
    type_a: str
    type_b: str
    relative_error: float
    largest_error: float


def compare(
    a: LLM,
    b: LLM,
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compares the predictions of two models of one vocabulary on a text. `a` is the better one, the base.

    Chunks are those of `perplexity`.

    Raises:
        InvalidRequestError: other tokens, a text that is too short, or a context that does not fit.
    """
    if context > min(a.context_length, b.context_length):
        raise InvalidRequestError(
            f"chunks of {context} tokens do not fit contexts of {a.context_length} and {b.context_length}; "
            f"load both models with ctx={context} or choose shorter chunks"
        )
    ids, bos_id = text_ids(a.tokenizer, text)
    if ids != text_ids(b.tokenizer, text)[0]:
        raise InvalidRequestError(
            "the models make different tokens of the text; only models with one vocabulary can be compared"
        )
    chunks = list(chunks_of(ids, context, bos_id, max_chunks))
    per_token = []
    for done, chunk in enumerate(chunks):
        if progress is not None:
            progress(done, len(chunks))
        rows_a, rows_b = (model.logits(chunk.ids)[chunk.first : -1] for model in (a, b))
        if rows_a.shape != rows_b.shape:
            raise InvalidRequestError(
                f"the models have vocabularies of {rows_a.shape[1]} and {rows_b.shape[1]} tokens; they must agree"
            )
        targets = np.array(chunk.targets)
        for first in range(0, len(targets), _ROWS):
            part = slice(first, first + _ROWS)
            per_token.append(_measures(rows_a[part], rows_b[part], targets[part]))
    if progress is not None:
        progress(len(chunks), len(chunks))
    return _summary(np.concatenate(per_token, axis=1))


def compare_tensors(
    a: WeightSource, b: WeightSource, progress: Progress | None = None
) -> list[TensorDifference]:
    """The weights of two files, decoded, by tensors that both have in the same shape; worst first.

    Rotary heads are brought into one order, so that a GGUF and a Hugging Face folder compare.
    """
    names = [n for n, info in a.tensors.items() if n in b.tensors and b.tensors[n].shape == info.shape]
    result = []
    for done, name in enumerate(names):
        if progress is not None:
            progress(done, len(names))
        result.append(_tensor_difference(a, b, name))
    return sorted(result, key=lambda item: -item.relative_error)


def _measures(
    rows_a: npt.NDArray[np.float32], rows_b: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Per token: loss under a, loss under b, divergence, agreement. (4, n)"""
    log_a, log_b = log_probabilities(rows_a), log_probabilities(rows_b)
    tokens = np.arange(len(targets))
    divergence = (np.exp(log_a) * (log_a - log_b)).sum(axis=1)
    same = rows_a.argmax(axis=1) == rows_b.argmax(axis=1)
    return np.stack([-log_a[tokens, targets], -log_b[tokens, targets], divergence, same.astype(np.float64)])


def _summary(per_token: npt.NDArray[np.float64]) -> ComparisonResult:
    loss_a, loss_b, divergence, same = per_token
    shift = np.exp(-loss_b) - np.exp(-loss_a)
    return ComparisonResult(
        num_tokens=len(loss_a),
        perplexity_a=_exponential(_mean(loss_a)),
        perplexity_b=_exponential(_mean(loss_b)),
        perplexity_ratio=_exponential(_mean(loss_b - loss_a)),
        divergence=_mean(divergence),
        divergence_median=float(np.median(divergence)),
        divergence_99=float(np.quantile(divergence, 0.99)),
        divergence_max=float(divergence.max()),
        top1_agreement=_mean(same),
        probability_rms=float(np.sqrt(np.mean(shift * shift))),
    )


def _mean(values: npt.NDArray[np.float64]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(max(len(values) - 1, 1))))


def _exponential(of: Estimate) -> Estimate:
    value = math.exp(of.value)
    return Estimate(value, value * of.error)


def _tensor_difference(a: WeightSource, b: WeightSource, name: str) -> TensorDifference:
    total = difference = largest = 0.0
    reorder = a.rope_layout != b.rope_layout
    for part_a, part_b in zip(_slices(a, name, reorder), _slices(b, name, reorder), strict=True):
        delta = part_b.astype(np.float64) - part_a
        total += float(np.vdot(part_a, part_a.astype(np.float64)))
        difference += float(np.vdot(delta, delta))
        largest = max(largest, float(np.abs(delta).max(initial=0.0)))
    relative = math.sqrt(difference / total) if total else (0.0 if difference == 0 else math.inf)
    return TensorDifference(name, a.tensors[name].type, b.tensors[name].type, relative, largest)


def _slices(source: WeightSource, name: str, reorder: bool) -> Iterator[npt.NDArray[np.float32]]:
    """A tensor's weights, some rows at a time; with `reorder` rotary pairs are brought into the interleaved order."""
    info = source.tensors[name]
    form = by_name(info.type)
    rows = 1
    for size in info.shape[:-1]:
        rows *= size
    raw = source.raw(name).reshape(rows, -1)
    head = _rotary_head(source, name, rows)
    step = max(1, _SLICE_WEIGHTS // max(1, info.shape[-1]) // head) * head
    for first in range(0, rows, step):
        values = form.decode(raw[first : first + step])
        if (
            reorder and source.rope_layout == "half" and head > 1
        ):  # (heads, 2, pairs, columns) -> (heads, pairs, 2, columns)
            values = values.reshape(-1, 2, head // 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        yield values
    source.drop_pages(name)


def _rotary_head(source: WeightSource, name: str, rows: int) -> int:
    """Rows of one attention head in a projection of queries or keys, 1 in any other tensor."""
    kind = name.rsplit(".", 2)[-2] if name.count(".") >= 2 else ""
    if kind not in ("attn_q", "attn_k"):
        return 1
    architecture = source.metadata.get("general.architecture", "")
    key = "head_count" if kind == "attn_q" else "head_count_kv"
    heads = source.metadata.get(f"{architecture}.attention.{key}")
    if heads is None:
        heads = source.metadata.get(f"{architecture}.attention.head_count", 1)
    return rows // int(heads) if isinstance(heads, int) and heads > 0 and rows % heads == 0 else 1

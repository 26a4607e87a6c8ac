"""``torchless compare``: how far one model is from another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.quality import TEXT_OPTIONS, StatusLine, chunk_length, read_text
from torchless.cli.terminal import columns, listing

if TYPE_CHECKING:
    from torchless.quality.comparison import ComparisonResult, TensorDifference

__all__ = ["command"]

_HELP = """Print how far model B is from model A, the better one: mostly a quantised file from its original.

With TEXT (a text file; - is standard input) both predict it, and the verb prints the Kullback-Leibler
divergence, how often both find the same token likeliest, and both perplexities. Weights are compared tensor
by tensor. A and B are GGUF files or Hugging Face folders with one vocabulary.
"""

_OWN = (
    Option(
        "--tensors/--no-tensors",
        default=None,
        heading="Text and output",
        help="Compare the weights.  [yes without a TEXT]",
    ),
)


@click.command("compare", cls=Verb, help=_HELP, short_help="Measure how far one model is from another.")
@with_options(
    [words_argument("A B [TEXT]")], TEXT_OPTIONS, _OWN, [o for o in LOAD_OPTIONS if o.name != "model"]
)
def command(
    words: tuple[str, ...],
    file: str | None,
    chunks: int | None,
    output: str,
    tensors: bool | None,
    **values: Any,
) -> None:
    names = [*words, *([file] if file is not None else [])]
    if not 2 <= len(names) <= 3:
        raise click.UsageError(
            f"expected two models and, if you like, a text; found {' '.join(names) or 'none'}"
        )
    text = read_text(names[2]) if len(names) == 3 else None
    load = load_keywords(values)
    load["ctx"] = chunk_length(load)
    status = StatusLine()
    with SignalWatch(status.clear):
        predictions = None if text is None else _predictions(names, text, load, chunks, status)
        wanted = tensors if tensors is not None else text is None
        weights = _weights(names, status) if wanted else None
    status.clear()
    if output == "json":
        report = {
            "a": names[0],
            "b": names[1],
            "predictions": None if predictions is None else asdict(predictions),
            "tensors": None if weights is None else [asdict(item) for item in weights],
        }
        json.dump(report, sys.stdout, indent=1)
        print()
        return
    if weights is not None:
        print("\n".join(_tensor_lines(weights)))
    if predictions is not None:
        print("\n".join(listing("Predictions", _prediction_lines(predictions))))


def _predictions(
    names: list[str], text: str, load: dict[str, Any], chunks: int | None, status: StatusLine
) -> ComparisonResult:
    from torchless.quality.comparison import compare

    with (
        load_for_verb(names[0], load, LoadProgress(names[0])) as a,
        load_for_verb(names[1], load, LoadProgress(names[1])) as b,
    ):
        return compare(
            a,
            b,
            text,
            context=load["ctx"],
            max_chunks=chunks,
            progress=lambda done, total: status.show(f"{done} of {total} chunks"),
        )


def _weights(names: list[str], status: StatusLine) -> list[TensorDifference]:
    from torchless.quality.comparison import compare_tensors
    from torchless.weights.open import open_source

    a = open_source(names[0])
    try:
        b = open_source(names[1])
        try:
            return compare_tensors(a, b, lambda done, total: status.show(f"{done} of {total} tensors"))
        finally:
            b.close()
    finally:
        a.close()


def _prediction_lines(result: ComparisonResult) -> Iterator[tuple[str, str]]:
    yield "tokens", str(result.num_tokens)
    yield "perplexity of A", f"{result.perplexity_a.value:.4f} +/- {result.perplexity_a.error:.4f}"
    yield "perplexity of B", f"{result.perplexity_b.value:.4f} +/- {result.perplexity_b.error:.4f}"
    yield "B / A", f"{result.perplexity_ratio.value:.5f} +/- {result.perplexity_ratio.error:.5f}"
    yield "divergence", f"{result.divergence.value:.6f} +/- {result.divergence.error:.6f} nats"
    yield (
        "median, 99 %, most",
        f"{result.divergence_median:.6f}, {result.divergence_99:.6f}, {result.divergence_max:.6f}",
    )
    yield "same likeliest token", f"{result.top1_agreement.value:.3%} +/- {result.top1_agreement.error:.3%}"
    yield "probability rms", f"{result.probability_rms:.3%}"


def _tensor_lines(weights: list[TensorDifference]) -> list[str]:
    rows = [("tensor", "A", "B", "relative error", "largest")]
    rows += [
        (item.name, item.type_a, item.type_b, f"{item.relative_error:.3%}", f"{item.largest_error:.3g}")
        for item in weights
    ]
    return [*columns(rows, right=[3, 4]), ""]

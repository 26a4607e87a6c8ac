"""``torchless perplexity``: how well a model predicts a text."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Verb, with_options, words_argument
from torchless.cli.quality import TEXT_OPTIONS, StatusLine, chunk_length, model_and_text

__all__ = ["command"]

_HELP = """Print how well a model predicts a text: the perplexity, with its standard error.

MODEL is a GGUF file or a Hugging Face folder (without one, the built-in model), TEXT a text file; - is standard
input. The text is cut into chunks of --ctx tokens (512), and the second half of each is scored, as
llama-perplexity does, so that figures compare.
"""


@click.command("perplexity", cls=Verb, help=_HELP, short_help="Score a model on a text.")
@with_options([words_argument("[MODEL] TEXT")], TEXT_OPTIONS, LOAD_OPTIONS)
def command(
    words: tuple[str, ...],
    model: str | None,
    file: str | None,
    chunks: int | None,
    output: str,
    **values: Any,
) -> None:
    from torchless.quality.perplexity import PerplexityResult, perplexity

    load = load_keywords(values)
    named, text = model_and_text(words, model, file)
    load["ctx"] = chunk_length(load)
    progress, status = LoadProgress(named), StatusLine()

    def leave() -> None:
        progress.abandon()
        status.clear()

    def show(result: PerplexityResult, num_chunks: int) -> None:
        status.show(f"{result.num_chunks} of {num_chunks} chunks: {result.value:.4f} +/- {result.error:.4f}")

    with SignalWatch(leave), load_for_verb(named, load, progress) as llm:
        result = perplexity(llm, text, context=load["ctx"], max_chunks=chunks, progress=show)
    status.clear()
    if output == "json":
        json.dump({"model": named, "context": load["ctx"], **asdict(result)}, sys.stdout)
        print()
    else:
        print(f"{result.num_tokens} tokens scored in {result.num_chunks} chunks of {load['ctx']}")
        print(f"perplexity {result.value:.4f} +/- {result.error:.4f}")

"""``torchless rerank``: documents in the order in which they answer a query."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import read_stdin, read_text_file, shortened
from torchless.cli.terminal import columns, is_terminal

__all__ = ["command"]

_HELP = """Print documents in the order in which they answer a query, best first, with scores from 0 to 1.

MODEL is a GGUF file, a Hugging Face folder, a name on the Hugging Face hub, or a URL: a cross-encoder (BERT or
XLM-RoBERTa with a classifier) or a decoder that was trained to answer yes or no (Qwen3-Reranker). Each DOCUMENT is one
text; without any, every line of --file or of standard input is one.
"""

_TEXTS, _OUTPUT = "Texts", "Output"

_RERANK_OPTIONS = (
    Option(
        "-f", "--file", heading=_TEXTS, metavar="FILE", help="Rank each line of a file; - is standard input."
    ),
    Option(
        "--instruction",
        heading=_TEXTS,
        metavar="TEXT",
        help="What a decoder shall judge by.  [what Qwen3-Reranker was trained with]",
    ),
    Option(
        "--truncate",
        is_flag=True,
        heading=_TEXTS,
        help="Leave out the end of a document that does not fit the context, instead of refusing it.",
    ),
    Option("--top-n", type=int, heading=_OUTPUT, metavar="N", help="Print the best N alone."),
    Option(
        "--json",
        "as_json",
        is_flag=True,
        heading=_OUTPUT,
        help="Print a JSON array of index, score and logit.",
    ),
)


@click.command("rerank", cls=Verb, help=_HELP, short_help="Order documents by how well they answer a query.")
@with_options([words_argument("MODEL QUERY [DOCUMENT]...")], _RERANK_OPTIONS, LOAD_OPTIONS)
def command(
    words: tuple[str, ...], model: str | None, file: str | None, as_json: bool, **values: Any
) -> None:
    load = {**load_keywords(values), "task": "rerank"}
    given = words if model is None else (model, *words)
    if len(given) < 2:
        raise click.UsageError("name a model and a query")
    named, query, *documents = given
    if file is not None or not documents:
        if file is None and is_terminal(sys.stdin):
            raise click.UsageError(
                "no document was given; add some, name a file of lines (--file), or pipe lines in"
            )
        documents += (read_stdin() if file in (None, "-") else read_text_file(str(file))).splitlines()
    with load_for_verb(named, load, LoadProgress(named)) as llm:
        ranked = llm.rerank(
            query, documents, **{key: values[key] for key in ("top_n", "instruction", "truncate")}
        )
    if as_json:
        print(
            json.dumps([{"index": item.index, "score": item.score, "logit": item.logit} for item in ranked])
        )
    elif ranked:
        rows = [(f"{item.score:.4f}", str(item.index), shortened(documents[item.index])) for item in ranked]
        print("\n".join(columns(rows, right=[0, 1])))

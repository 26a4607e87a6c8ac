"""``torchless embed``: vectors of texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.loading import LoadProgress, load_for_verb
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import read_stdin, read_text_file
from torchless.cli.terminal import columns, is_terminal
from torchless.pooling_types import POOLINGS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["command"]

_HELP = """Print the embeddings of texts: vectors that are near each other where texts mean the same.

MODEL is a GGUF file, a Hugging Face folder, a name such as org/repo:Q8_0 on the Hugging Face hub, or a URL: a model
made for embeddings (BERT, nomic-bert, Qwen3-Embedding, ...) or any model that writes text. Each TEXT is one text;
without any, every line of --file or of standard input is one. Each vector is printed as one line of JSON.
"""

_VECTORS, _OUTPUT = "Texts and vectors", "Output"

_EMBED_OPTIONS = (
    Option(
        "-f",
        "--file",
        heading=_VECTORS,
        metavar="FILE",
        help="Embed each line of a file; - is standard input.",
    ),
    Option(
        "--pooling",
        type=click.Choice(POOLINGS, case_sensitive=False),
        heading=_VECTORS,
        help="How the states of a text's tokens become one vector.  [what the model was trained with]",
    ),
    Option(
        "--normalize/--no-normalize",
        default=None,
        heading=_VECTORS,
        help="Make vectors unit long.  [what the model was trained with]",
    ),
    Option(
        "--dimensions",
        type=int,
        heading=_VECTORS,
        metavar="N",
        help="Keep the first N numbers of each vector.",
    ),
    Option(
        "--truncate",
        is_flag=True,
        heading=_VECTORS,
        help="Leave out the end of a text that is longer than the context, instead of refusing it.",
    ),
    Option(
        "-o",
        "--output",
        heading=_OUTPUT,
        metavar="FILE.npy",
        help="Write all vectors into one NumPy file, a float32 matrix with a row for each text.",
    ),
    Option(
        "--similarity",
        is_flag=True,
        heading=_OUTPUT,
        help="Print the cosine of the angle between every two vectors instead of the vectors.",
    ),
)


@click.command("embed", cls=Verb, help=_HELP, short_help="Print vectors of texts.")
@with_options([words_argument("MODEL [TEXT]...")], _EMBED_OPTIONS, LOAD_OPTIONS)
def command(
    words: tuple[str, ...],
    model: str | None,
    file: str | None,
    output: str | None,
    similarity: bool,
    **values: Any,
) -> None:
    load = {**load_keywords(values), "task": "embed"}
    named, *texts = words if model is None else (model, *words)
    if file is not None or not texts:
        if file is None and is_terminal(sys.stdin):
            raise click.UsageError(
                "no text was given; add some, name a file of lines (--file), or pipe lines in"
            )
        texts += (read_stdin() if file in (None, "-") else read_text_file(file)).splitlines()
    if output is not None and not output.endswith(".npy"):
        raise click.UsageError(
            f"--output {output}: vectors are written as a NumPy file, whose name ends in .npy"
        )
    chosen = {key: values[key] for key in ("pooling", "normalize", "dimensions", "truncate")}
    with load_for_verb(named, load, LoadProgress(named)) as llm:
        vectors = llm.embed(texts, **chosen)
    if output is not None:
        import numpy as np

        with Path(output).open("wb") as stream:
            np.save(stream, vectors)
    if similarity:
        _print_similarity(vectors)
    elif output is None:
        for vector in vectors:
            print(json.dumps([float(str(value)) for value in vector]))


def _print_similarity(vectors: npt.NDArray[np.float32]) -> None:
    import numpy as np

    wide = vectors.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
    rows = [[f"{value:.4f}" for value in row] for row in unit @ unit.T]
    print("\n".join(columns(rows, right=range(len(rows)))))

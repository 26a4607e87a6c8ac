"""``torchless tokenize``: text to token ids and back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import gather_text, shortened, split_words
from torchless.cli.terminal import columns, printable
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.text.tokenizer import Tokenizer

__all__ = ["command"]

_HELP = """Print the token ids of a text, on one line, as the model gets them.

MODEL is a GGUF file or a Hugging Face folder; a single argument that names no file is a text for the
built-in model. The text may also come from --file or standard input.
"""

_TEXT, _OUTPUT = "Text", "Output"

_TOKENIZE_OPTIONS = (
    Option("-m", "--model", heading=_TEXT, metavar="PATH", help="Same as the argument MODEL."),
    Option("-p", "--prompt", heading=_TEXT, metavar="TEXT", help="Same as the argument TEXT."),
    Option(
        "-f", "--file", heading=_TEXT, metavar="FILE", help="Read the text from a file; - is standard input."
    ),
    Option(
        "--no-special",
        is_flag=True,
        heading=_TEXT,
        aliases=("--no-bos",),
        help="Leave out the tokens that the model wants around a text.",
    ),
    Option(
        "--parse-special",
        is_flag=True,
        heading=_TEXT,
        help="Read names of control tokens (<|im_end|>) as those tokens.",
    ),
    Option(
        "--decode", is_flag=True, heading=_TEXT, help="TEXT is token ids; print the text that they stand for."
    ),
    Option(
        "--json", "form", flag_value="json", heading=_OUTPUT, help="Print a JSON array of ids, or a string."
    ),
    Option("--pieces", "form", flag_value="pieces", heading=_OUTPUT, help="Print each id with its token."),
    Option("--count", "form", flag_value="count", heading=_OUTPUT, help="Print how many tokens there are."),
)


@click.command("tokenize", cls=Verb, help=_HELP, short_help="Turn text into token ids, or back.")
@with_options([words_argument("[MODEL] [TEXT]")], _TOKENIZE_OPTIONS)
def command(
    words: tuple[str, ...],
    model: str | None,
    prompt: str | None,
    file: str | None,
    no_special: bool,
    parse_special: bool,
    decode: bool,
    form: str | None,
) -> None:
    model, text = split_words(words, model, text_given=prompt is not None or file is not None)
    text = gather_text(text, prompt, file)
    if text is None:
        raise click.UsageError("no text was given; add it, or pipe it in")
    tokenizer = _open_tokenizer(model)
    if decode:
        ids = _read_ids(text)
        if form is None:
            print(tokenizer.decode(ids, skip_special_tokens=no_special))
            return
        if form == "json":
            print(json.dumps(tokenizer.decode(ids, skip_special_tokens=no_special)))
            return
    else:
        ids = tokenizer.encode(text, add_special_tokens=not no_special, parse_special=parse_special)
    _print_ids(tokenizer, ids, form)


def _print_ids(tokenizer: Tokenizer, ids: list[int], form: str | None) -> None:
    if form == "json":
        print(json.dumps(ids))
    elif form == "count":
        print(len(ids))
    elif form == "pieces":
        rows = [(str(token_id), _piece(tokenizer, token_id)) for token_id in ids]
        print("\n".join(columns(rows, right=[0])), end="\n" if rows else "")
    else:
        print(*ids)


def _piece(tokenizer: Tokenizer, token_id: int) -> str:
    """What a token stands for, quoted; ``\\xff`` for bytes that are no character alone."""
    raw = tokenizer.token_bytes(token_id, special=True)
    text = (
        raw.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    return f"'{printable(text)}'"


def _read_ids(text: str) -> list[int]:
    """Token ids between spaces, commas or brackets."""
    words = re.split(r"[\s,\[\]]+", text.strip(" \t\r\n,[]"))
    ids = []
    for word in words if words != [""] else []:
        if not re.fullmatch(r"[0-9]{1,12}", word):
            raise InvalidRequestError(f"--decode takes token ids, found {shortened(word)!r}")
        ids.append(int(word))
    return ids


def _open_tokenizer(model: str | None) -> Tokenizer:
    from torchless.loading import BUILT_IN_MODEL
    from torchless.text.tokenizer import Tokenizer
    from torchless.weights.open import open_source

    source = open_source(BUILT_IN_MODEL if model is None else model)
    try:
        if source.format == "safetensors":
            return Tokenizer.from_folder(source.path if source.path.is_dir() else source.path.parent)
        return Tokenizer.from_metadata(source.metadata)
    finally:
        source.close()

"""``torchless verify``: whether a model file is sound."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import one_model
from torchless.cli.quality import StatusLine
from torchless.cli.terminal import columns
from torchless.errors import InvalidRequestError

__all__ = ["command"]

_HELP = """Check a model file: no NaN, infinity or absurd weight in any tensor, all tensors that the architecture
needs, a tokenizer that gives texts back, templates that render. All of the file is read.

MODEL is a GGUF file or a Hugging Face folder; without one, the built-in model is checked. The exit status is 1
if anything is wrong.
"""

_OPTIONS = (
    Option("-m", "--model", metavar="PATH", help="Same as the argument MODEL."),
    Option("--hashes", is_flag=True, help="Print the SHA-256 of every tensor."),
    Option("--save", metavar="FILE", help="Write the SHA-256 of every tensor to a JSON file."),
    Option("--check", metavar="FILE", help="Compare with a file that --save wrote."),
    Option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the result.",
    ),
)


@click.command("verify", cls=Verb, help=_HELP, short_help="Check that a model file is sound.")
@with_options([words_argument("[MODEL]")], _OPTIONS)
@click.pass_context
def command(
    context: click.Context,
    words: tuple[str, ...],
    model: str | None,
    hashes: bool,
    save: str | None,
    check: str | None,
    output: str,
) -> None:
    from torchless.loading import BUILT_IN_MODEL
    from torchless.memory import format_bytes
    from torchless.quality.verification import verify
    from torchless.weights.open import open_source

    expected = None if check is None else _read_hashes(check)
    status = StatusLine()
    source = open_source(one_model(words, model) or BUILT_IN_MODEL)
    try:
        with SignalWatch(status.clear):
            result = verify(
                source,
                progress=lambda done, total: status.show(
                    f"{format_bytes(done)} of {format_bytes(total)} checked"
                ),
            )
    finally:
        source.close()
        status.clear()
    found = {tensor.name: tensor.sha256 for tensor in result.tensors}
    problems = [*result.problems, *([] if expected is None else _changes(expected, found, check or ""))]
    if save is not None:
        Path(save).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if output == "json":
        report = {**asdict(result), "problems": problems, "is_sound": not problems}
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        if hashes:
            print("\n".join(columns((tensor.name, tensor.type, tensor.sha256) for tensor in result.tensors)))
        for mark, lines in (("ok  ", result.passed), ("note", result.notes), ("BAD ", problems)):
            for line in lines:
                print(f"{mark}  {line}")
        print("nothing is wrong" if not problems else f"wrong: {len(problems)}")
    context.exit(1 if problems else 0)


def _read_hashes(path: str) -> dict[str, str]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read: {error}; expected a file that --save wrote"
        ) from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise InvalidRequestError(f"{path} is not a file that --save wrote: expected names and hashes")
    return values


def _changes(expected: dict[str, str], found: dict[str, str], path: str) -> list[str]:
    lines = [f"tensor {name} of {path} is missing" for name in expected if name not in found]
    lines += [f"tensor {name} is not in {path}" for name in found if name not in expected]
    lines += [
        f"tensor {name} has changed: SHA-256 {found[name][:16]}..., in {path} {value[:16]}..."
        for name, value in expected.items()
        if name in found and found[name] != value
    ]
    return lines

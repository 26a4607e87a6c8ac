"""``torchless bench``: how fast a model runs here, and how close that is to what the machine can do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.model_options import LOAD_OPTIONS, load_keywords
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.quality import StatusLine
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

__all__ = ["command"]

_HELP = """Measure speed, latency and memory of models, with llama-bench's flags and JSON fields.

MODEL is a GGUF file or a Hugging Face folder, several if you like; without one, the built-in model is measured.
--synthetic measures a real model's shapes with random weights instead, without a download. Every figure comes with
its share of what this machine can do, measured in the same run, and a hash of the logits.

\b
Examples:
  torchless bench model.gguf                              a prompt of 512 tokens, then 128 new ones
  torchless bench --synthetic llama-3.2-1b:Q4_K_M -d 0,4096
  torchless bench model.gguf --kind latency,memory
  torchless bench model.gguf --save base.json             ... a change later:
  torchless bench model.gguf --compare base.json
"""

_KINDS = ("generation", "latency", "memory", "batch")


class Numbers(_ParamType):
    """Whole numbers separated by commas; the option may be repeated."""

    name = "n,n,..."

    def __init__(self, least: int, pattern: str = r"\d{1,9}") -> None:
        self.least, self.pattern = least, pattern

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(re.fullmatch(self.pattern, word) and int(word) >= self.least for word in words):
            self.fail(
                f"{value!r} is not a list of whole numbers from {self.least} on, such as 128,512", param, ctx
            )
        return tuple(map(int, words))


_TESTS = "Tests"

_OWN = (
    Option(
        "-m", "--model", multiple=True, heading=_TESTS, metavar="PATH", help="Same as the argument MODEL."
    ),
    Option(
        "--synthetic",
        multiple=True,
        metavar="ARCH:RECIPE",
        heading=_TESTS,
        help="A model's shapes with random weights, such as llama-3.2-1b:Q4_K_M; repeatable.",
    ),
    Option(
        "--kind",
        default="generation",
        show_default=True,
        metavar="KIND,...",
        heading=_TESTS,
        help=f"Which tests: {', '.join(_KINDS)}, or all.",
    ),
    Option("-p", "--n-prompt", type=Numbers(0), multiple=True, heading=_TESTS, help="Prompt tokens. [512]"),
    Option("-n", "--n-gen", type=Numbers(0), multiple=True, heading=_TESTS, help="Decoded tokens. [128]"),
    Option(
        "-pg",
        "pairs",
        type=Numbers(0),
        multiple=True,
        metavar="P,N",
        heading=_TESTS,
        help="A prompt and decoding in one test.",
    ),
    Option(
        "-d",
        "--n-depth",
        type=Numbers(0),
        multiple=True,
        heading=_TESTS,
        help="Tokens before. [0; batch: -p]",
    ),
    Option(
        "-b",
        "--sequences",
        type=Numbers(1),
        multiple=True,
        heading=_TESTS,
        help="Sequences that decode together, of the kind batch. [1,2,4,8,16]",
    ),
    Option("-t", "--threads", type=Numbers(1), multiple=True, heading=_TESTS, help="Worker threads. [auto]"),
    Option(
        "-r",
        "--repetitions",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        metavar="N",
        heading=_TESTS,
        help="Times that each test is run, in turn with the others.",
    ),
    Option(
        "--seed", type=int, default=0, show_default=True, heading=_TESTS, help="Of random tokens and weights."
    ),
    Option(
        "-o",
        "--output",
        type=click.Choice(["md", "csv", "json"]),
        default="md",
        show_default=True,
        help="Form of the result.",
    ),
    Option("--save", metavar="FILE", help="Also write the results as JSON."),
    Option("--compare", metavar="FILE", help="Print a table of before (a file of --save) and after."),
    Option("--report", metavar="FILE", help="Also write a page with charts (HTML without outside parts)."),
    Option("--profile", is_flag=True, help="Also print how long each part of a step takes."),
)
_OF_LOADING = [
    option
    for option in LOAD_OPTIONS
    if str(option.name).startswith(
        ("kv", "activations", "fast", "pin", "numa", "lora", "lazy", "memory", "quant")
    )
]
_STEP_TOKENS = Option(
    "-ub",
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="N",
    heading="Model and machine",
    aliases=("--ubatch-size",),
    help="Prompt tokens computed at once.",
)


@click.command("bench", cls=Verb, help=_HELP, short_help="Measure speed, latency and memory.")
@with_options([words_argument("[MODEL]...")], _OWN, _OF_LOADING, [_STEP_TOKENS])
def command(
    words: tuple[str, ...], model: tuple[str, ...], synthetic: tuple[str, ...], **values: Any
) -> None:
    from torchless.bench.comparison import compare_rows
    from torchless.bench.rows import load_rows, save_rows
    from torchless.bench.suite import run_suite
    from torchless.bench.tables import as_csv, as_json, as_markdown

    output, save, compare, report = (values.pop(name) for name in ("output", "save", "compare", "report"))
    print_profile = values.pop("profile")
    if output != "md" and (compare is not None or print_profile):
        raise click.UsageError(f"--compare and --profile print tables, which -o {output} has no place for")
    before = None if compare is None else load_rows(compare)
    suite = _suite(values, with_profile=print_profile or report is not None)
    status = StatusLine()
    with SignalWatch(status.clear), _models([*words, *model], synthetic, values["seed"], status) as models:
        result = run_suite(models, suite, status.show)
    status.clear()
    if save is not None:
        save_rows(save, result.rows)
    if report is not None:
        from torchless.bench.report import report_page

        Path(report).write_text(report_page(result), encoding="utf-8")
    if output != "md":
        sys.stdout.write({"csv": as_csv, "json": as_json}[output](result.rows) + "\n")
        return
    print(as_markdown(result.rows))
    if print_profile:
        from torchless.bench.tables import profile_table

        for profile in result.profiles:
            print("\n" + profile_table(profile))
    if before is not None:
        print("\n" + compare_rows(before, result.rows))


def _suite(values: dict[str, Any], *, with_profile: bool) -> Any:
    """The suite that the options describe. Raises click.UsageError."""
    from torchless.bench.suite import Suite

    load = load_keywords(
        {
            **{str(option.name): values[str(option.name)] for option in _OF_LOADING},
            "ctx": "auto",
            "threads": "auto",
            "batch_tokens": values["batch_tokens"],
            "backend": "cpu",
            "chat_template": None,
        }
    )
    kinds = values["kind"].split(",")
    kinds = list(_KINDS) if "all" in kinds else kinds
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise click.UsageError(f"--kind {unknown[0]!r} is unknown, expected some of {', '.join(_KINDS)}, all")
    numbers = {name: _flat(values[name]) for name in ("n_prompt", "n_gen", "n_depth", "sequences", "threads")}
    pairs = values["pairs"]
    if any(len(pair) != 2 for pair in pairs):
        raise click.UsageError("-pg takes two numbers, such as -pg 512,128")
    only_pairs = pairs and not numbers["n_prompt"] and not numbers["n_gen"]
    prompts = numbers["n_prompt"] or ([0] if only_pairs else [512])
    return Suite(
        kinds=kinds,
        prompts=prompts,
        news=numbers["n_gen"] or ([0] if only_pairs else [128]),
        pairs=pairs,
        depths=numbers["n_depth"] or [0],
        batch_depths=numbers["n_depth"] or prompts,
        batches=numbers["sequences"] or [1, 2, 4, 8, 16],
        threads=numbers["threads"] or [None],
        repetitions=values["repetitions"],
        load=load,
        seed=values["seed"],
        with_profile=with_profile,
    )


def _flat(lists: tuple[tuple[int, ...], ...]) -> list[int]:
    return list(dict.fromkeys(number for numbers in lists for number in numbers))


@contextmanager
def _models(
    paths: list[str], synthetic: tuple[str, ...], seed: int, status: StatusLine
) -> Iterator[list[tuple[str, str]]]:
    """(path, name) of every model; synthetic ones are written to a temporary folder and removed at the end."""
    from tempfile import TemporaryDirectory

    from torchless.loading import BUILT_IN_MODEL

    models = [(path, Path(path).stem if path.endswith(".gguf") else Path(path).name) for path in paths]
    with TemporaryDirectory(prefix="torchless-bench-") as folder:
        for name in (name for names in synthetic for name in names.split(",")):
            shape, colon, recipe = name.partition(":")
            if not colon:
                raise InvalidRequestError(
                    f"--synthetic {name!r} names no recipe, expected such as {name}:Q4_K_M"
                )
            status.show(f"writing random weights: {name}")
            models.append((_write(folder, shape, recipe, seed), f"{shape} {recipe.upper()}"))
        yield models or [(str(BUILT_IN_MODEL), "stories (built in)")]


def _write(folder: str, shape: str, recipe: str, seed: int) -> str:
    """Writes a synthetic model; returns its path."""
    from torchless.bench.shapes import find_shape
    from torchless.bench.synthetic import write_synthetic
    from torchless.models import find_family

    find_family(find_shape(shape).architecture)  # refused before gigabytes are written
    path = Path(folder) / f"{shape}-{recipe}.gguf"
    write_synthetic(path, shape, recipe, seed=seed)
    return str(path)

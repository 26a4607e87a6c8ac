"""``torchless plan``: memory and speed of every recipe of a model on this machine, and which to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from torchless.activation_types import ACTIVATION_TYPES
from torchless.cli.interrupts import SignalWatch
from torchless.cli.model_options import AutoOrCount, KvTypes
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import one_model
from torchless.cli.quality import StatusLine

__all__ = ["command"]

_HELP = """Say what each recipe of a model takes and how fast it is here, and which to take.

MODEL is a GGUF file, a Hugging Face folder, org/repo[:QUANT] or a URL; its weights are not loaded. --synthetic plans a
known model's shapes without any file. Speeds come from products that are timed now; errors are measured on sampled rows
of the weights.

\b
Examples:
  torchless plan model-BF16.gguf --memory 8GiB
  torchless plan --synthetic llama-3.1-8b -c 8192 --report plan.html
"""

_WHAT, _FORM = "What to plan", "Result"

_OPTIONS = (
    Option("-m", "--model", heading=_WHAT, metavar="PATH", help="Same as the argument MODEL."),
    Option(
        "--synthetic", heading=_WHAT, metavar="SHAPE", help="A known model's shapes, such as llama-3.2-1b."
    ),
    Option(
        "--recipe",
        "recipes",
        multiple=True,
        heading=_WHAT,
        metavar="RECIPE,...",
        help="Only these recipes, such as Q4_K_M,Q8_0; repeatable. [all]",
    ),
    Option(
        "-c",
        "--ctx",
        type=AutoOrCount(),
        default="auto",
        heading=_WHAT,
        aliases=("--ctx-size",),
        help="Context length in tokens; auto is the model's, at most 4096.",
    ),
    Option(
        "--memory",
        heading=_WHAT,
        metavar="SIZE",
        help="Choose for so much memory, such as 8GiB; what is left now if not given.",
    ),
    Option(
        "--kv-type",
        "kv",
        type=KvTypes(),
        default="f16",
        show_default=True,
        heading=_WHAT,
        help="Number format of cached keys and values.",
    ),
    Option(
        "--activations",
        type=click.Choice(ACTIVATION_TYPES, case_sensitive=False),
        default="int8",
        show_default=True,
        heading=_WHAT,
        help="What products multiply weights with.",
    ),
    Option("-t", "--threads", type=AutoOrCount(), default="auto", heading=_WHAT, help="Worker threads."),
    Option(
        "-b",
        "--batch-tokens",
        type=click.IntRange(min=1),
        default=512,
        show_default=True,
        heading=_WHAT,
        help="Prompt tokens computed at once.",
    ),
    Option("--no-error", is_flag=True, heading=_WHAT, help="Do not measure errors of the weights."),
    Option(
        "-o",
        "--output",
        type=click.Choice(["md", "json"]),
        default="md",
        show_default=True,
        heading=_FORM,
        help="Form of the result.",
    ),
    Option("--report", heading=_FORM, metavar="FILE", help="Also write a page with charts (HTML)."),
)


@click.command("plan", cls=Verb, help=_HELP, short_help="Say which recipe fits, and how fast it would be.")
@with_options([words_argument("[MODEL]")], _OPTIONS)
def command(words: tuple[str, ...], model: str | None, synthetic: str | None, **values: Any) -> None:
    from torchless.loading import BUILT_IN_MODEL
    from torchless.planning.forecast import plan_model
    from torchless.planning.pages import as_json, as_markdown, plan_page

    name = one_model(words, model)
    if name is not None and synthetic is not None:
        raise click.UsageError("MODEL and --synthetic are two models; name one")
    status = StatusLine()
    with SignalWatch(status.clear):
        plan = plan_model(
            None if synthetic is not None else name or str(BUILT_IN_MODEL),
            synthetic=synthetic,
            ctx=_number(values["ctx"]),
            memory=values["memory"],
            kv=values["kv"],
            activations=values["activations"],
            threads=_number(values["threads"]),
            batch_tokens=values["batch_tokens"],
            recipes=[recipe for text in values["recipes"] for recipe in text.split(",")] or None,
            with_error=not values["no_error"],
            progress=status.show,
        )
    status.clear()
    if values["report"] is not None:
        Path(values["report"]).write_text(plan_page(plan), encoding="utf-8")
    print({"md": as_markdown, "json": as_json}[values["output"]](plan))


def _number(value: int | str) -> int | None:
    return None if isinstance(value, str) else value

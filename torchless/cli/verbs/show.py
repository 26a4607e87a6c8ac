"""``torchless show``: what a model file says about itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from torchless.activation_types import ACTIVATION_TYPES
from torchless.cli.loading import show_log
from torchless.cli.options import Option, Verb, with_options, words_argument
from torchless.cli.prompt import one_model
from torchless.cli.terminal import columns, terminal_width
from torchless.errors import TemplateError

if TYPE_CHECKING:
    from torchless.weights.source import WeightSource

__all__ = ["command"]

_HELP = """Describe a model: architecture, size, formats, tokenizer, template, and whether torchless runs it.

MODEL is a GGUF file or a Hugging Face folder, or a LoRA adapter; without one, the built-in model is described.
Weights are not loaded.
"""

_SHOWN_TEXT = 160  # characters of a metadata value
_SHOWN_ITEMS = 6  # elements of a metadata array

_SHOW_OPTIONS = (
    Option("-m", "--model", metavar="PATH", help="Same as the argument MODEL."),
    Option("--plan", "part", flag_value="plan", help="The operations of one step, in order."),
    Option(
        "--stages", "part", flag_value="stages", help="What the CPU backend makes of them, and what it fused."
    ),
    Option("--metadata", "part", flag_value="metadata", help="All metadata; long values are shortened."),
    Option("--tensors", "part", flag_value="tensors", help="All tensors with type, shape and size."),
    Option("--template", "part", flag_value="template", help="The chat template as it stands."),
    Option(
        "--activations",
        type=click.Choice(ACTIVATION_TYPES, case_sensitive=False),
        default="int8",
        show_default=True,
        help="What products would multiply the weights with, as `torchless run --activations` sets it.",
    ),
    Option("--json", "part", flag_value="json", help="Everything as JSON, arrays in full."),
)


@click.command("show", cls=Verb, help=_HELP, short_help="Describe a model file.")
@with_options([words_argument("[MODEL]")], _SHOW_OPTIONS)
def command(words: tuple[str, ...], model: str | None, part: str | None, activations: str) -> None:
    from torchless.adapters.open import find_adapter
    from torchless.cli.adapter_report import describe_adapter
    from torchless.loading import BUILT_IN_MODEL
    from torchless.weights.open import open_source

    show_log()
    path = one_model(words, model) or BUILT_IN_MODEL
    adapter = find_adapter(path)
    if adapter is not None:
        for line in describe_adapter(adapter, part):
            print(line)
        return
    source = open_source(path)
    try:
        for line in _PARTS[part](source, activations):
            print(line)
    finally:
        source.close()


def _summary(source: WeightSource, activations: str) -> Iterable[str]:
    from torchless.cli.model_report import ModelReport

    return ModelReport.of(source, activations).lines()


def _json(source: WeightSource, activations: str) -> Iterable[str]:
    from torchless.cli.model_report import ModelReport

    yield json.dumps(ModelReport.of(source, activations).json(), indent=1, allow_nan=False)


def _plan(source: WeightSource, activations: str) -> Iterable[str]:
    from torchless.models import record_plan

    plan, _ = record_plan(source)
    return str(plan).splitlines()


def _stages(source: WeightSource, activations: str) -> Iterable[str]:
    from torchless.backends.cpu.listing import list_stages
    from torchless.models import record_plan

    plan, _ = record_plan(source)
    return list_stages(plan, source, activations)


def _metadata(source: WeightSource, activations: str) -> Iterable[str]:
    lines = columns((key, _shown(value)) for key, value in source.metadata.items())
    width = terminal_width(sys.stdout)
    return (line if len(line) <= width else line[: width - 1] + "\u2026" for line in lines)


def _tensors(source: WeightSource, activations: str) -> Iterable[str]:
    rows = [("name", "type", "shape", "bytes")]
    for tensor in source.tensors.values():
        rows.append((tensor.name, tensor.type, " x ".join(map(str, tensor.shape)), str(tensor.num_bytes)))
    return columns(rows, right=[2, 3])


def _template(source: WeightSource, activations: str) -> Iterable[str]:
    from torchless.cli.tokenizer_report import read_templates

    templates = read_templates(source)
    if not templates:
        raise TemplateError(f"{source.path} has no chat template")
    for name, text in templates.items():
        if len(templates) > 1:
            yield f"--- {name} ---"
        yield text


def _shown(value: Any) -> str:
    """A metadata value on one line."""
    if isinstance(value, str):
        shown = json.dumps(value[:_SHOWN_TEXT], ensure_ascii=False)
        return shown if len(value) <= _SHOWN_TEXT else f"{len(value)} characters: {shown}..."
    if isinstance(value, bool) or not isinstance(value, Sequence):
        return f"{value:.7g}" if isinstance(value, float) else json.dumps(value, default=str)
    items = ", ".join(_shown(item) for item in value[:_SHOWN_ITEMS])
    return f"[{items}]" if len(value) <= _SHOWN_ITEMS else f"{len(value)} values: [{items}, ...]"


_PARTS: dict[str | None, Callable[[WeightSource, str], Iterable[str]]] = {
    None: _summary,
    "plan": _plan,
    "stages": _stages,
    "metadata": _metadata,
    "tensors": _tensors,
    "template": _template,
    "json": _json,
}

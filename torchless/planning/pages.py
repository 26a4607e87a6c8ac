"""A plan as text and as a page with charts."""

from __future__ import annotations

import json
from html import escape

from torchless.bench.charts import Bar, Spot, bar_chart, scatter_chart
from torchless.bench.page import figure, html_table, page
from torchless.bench.tables import markdown_table
from torchless.memory import format_bytes
from torchless.planning.findings import ModelPlan, RecipeForecast

__all__ = ["as_json", "as_markdown", "plan_page"]

_GIB = 1 << 30


def as_json(plan: ModelPlan) -> str:
    """Everything, as JSON."""
    return json.dumps(plan.json(), indent=1, allow_nan=False)


def as_markdown(plan: ModelPlan) -> str:
    """A line on the setting, the table, and the advice."""
    return "\n\n".join([_setting(plan), _table(plan), plan.advice, *_from_the_file(plan)])


def _from_the_file(plan: ModelPlan) -> list[str]:
    """What the model would take that leaves its weights where they are."""
    if plan.lazy_bytes is None:
        return []
    return [f"As it is it also runs from the file (--lazy), slowly, in {format_bytes(plan.lazy_bytes)}."]


def plan_page(plan: ModelPlan) -> str:
    """A page of HTML that needs nothing else."""
    spots = [
        Spot(row.recipe, row.total_bytes / _GIB, row.decode_tokens_per_second, _hover(row), _weight(row))
        for row in plan.rows
    ]
    note = "each circle is a recipe; the larger the circle, the larger the error in its weights"
    charts = [figure("Memory and speed", note, scatter_chart(spots, "GiB of memory", "tok/s, decoding"))]
    measured = [row for row in plan.rows if row.error is not None]
    if measured:
        bars = [Bar(row.recipe, row.error or 0.0, f"{row.error:.2%}") for row in measured]
        text = "root of the mean squared error over that of the weights, measured on sampled rows"
        charts.append(figure("Error of the weights", text, bar_chart(bars, "Error of the weights")))
    bars = [Bar(row.recipe, row.total_bytes / _GIB, format_bytes(row.total_bytes)) for row in plan.rows]
    text = f"weights, work space, a full context of {plan.context_length} tokens, and the process"
    charts.append(figure("Peak memory", text, bar_chart(bars, "Peak memory")))
    parts = [
        *(f"<p>{escape(text)}</p>" for text in (plan.advice, *_from_the_file(plan))),
        '<div class="charts">',
        *charts,
        "</div>",
    ]
    parts += ["<h2>All figures</h2>", html_table(_table(plan).replace("**", ""))]
    return page(f"plan: {plan.model}", _setting(plan), parts)


def _setting(plan: ModelPlan) -> str:
    memory = ""
    if plan.memory_bytes is not None:
        memory = f" Memory: {format_bytes(plan.memory_bytes)} ({plan.memory_limit})."
    return (
        f"{plan.model}: {plan.context_length} tokens of context in {plan.kv_type}, {plan.activations} activations, "
        f"{plan.num_threads} threads, reads {plan.read_bytes_per_second / 1e9:.1f} GB/s.{memory}"
    )


def _table(plan: ModelPlan) -> str:
    head = [
        *("recipe", "bits", "file", "weights", "KV", "scratch", "process", "peak", "fits"),
        *("decode tok/s", "at full context", "prefill tok/s", "error"),
    ]
    return markdown_table(head, [_cells(plan, row) for row in plan.rows])


def _cells(plan: ModelPlan, row: RecipeForecast) -> list[str]:
    sizes = (row.file_bytes, row.weight_bytes, row.kv_bytes, row.scratch_bytes, row.process_bytes)
    fits = plan.memory_bytes is None or row.total_bytes <= plan.memory_bytes
    is_chosen = plan.choice is not None and plan.choice.recipe == row.recipe
    return [
        f"**{row.recipe}**" if is_chosen else row.recipe,
        f"{row.bits_per_weight:.2f}",
        *map(format_bytes, sizes),
        format_bytes(row.total_bytes),
        "yes" if fits else "no",
        f"{row.decode_tokens_per_second:.1f}",
        f"{row.long_decode_tokens_per_second:.1f}",
        f"{row.prefill_tokens_per_second:.0f}",
        "" if row.error is None else f"{row.error:.2%}",
    ]


def _hover(row: RecipeForecast) -> str:
    error = "" if row.error is None else f", error {row.error:.2%}"
    return (
        f"{row.recipe}: {format_bytes(row.total_bytes)}, {row.decode_tokens_per_second:.1f} tok/s decoding, "
        f"{row.prefill_tokens_per_second:.0f} prefill{error}"
    )


def _weight(row: RecipeForecast) -> float:
    """Size of the circle: 0 to 1, with the error."""
    return 0.3 if row.error is None else min(1.0, row.error / 0.25)

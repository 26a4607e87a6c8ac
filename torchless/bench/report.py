"""A page about a bench: charts, tables and how to read them, in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from torchless.bench.charts import Bar, Point, Series, bar_chart, line_chart, roofline_chart
from torchless.bench.page import figure, html_table, page
from torchless.bench.rows import Row
from torchless.bench.suite import SuiteResult
from torchless.bench.tables import as_markdown

__all__ = ["report_page"]

_MOST_STAGES = 12


def report_page(result: SuiteResult) -> str:
    """The page's HTML."""
    rows = result.rows
    first = rows[0]
    models = list(dict.fromkeys(row["model_type"] for row in rows))
    charts = [
        *_tests(rows),
        _roofline(rows),
        *_lines(rows, "Decoding, by depth", _is_decode, "n_depth", "tokens of context"),
        *_lines(rows, "Prefill, by depth", _is_prefill, "n_depth", "tokens of context"),
        *_lines(rows, "Decoding together, by number of sequences", _is_batch, "n_sequences", "sequences"),
        *_stages(result),
    ]
    machine = (
        f"{first['cpu_info']} · {first['isa']} · {first['n_threads']} threads · {first['engine']} "
        f"{first['build_commit']} · {first['test_time']}"
    )
    parts = [_tiles(rows), '<div class="charts">', *charts, "</div>", _tables(rows), _READING]
    return page(f"bench: {', '.join(models)}", machine, parts)


# -- what the rows are ----------------------------------------------------------------------------------


def _is_decode(row: Row) -> bool:
    return row["kind"] == "generation" and not row["n_prompt"]


def _is_prefill(row: Row) -> bool:
    return row["kind"] == "generation" and not row["n_gen"]


def _is_batch(row: Row) -> bool:
    return bool(row["kind"] == "batch")


def _roof_share(row: Row) -> float:
    """How near the row is to the roof that is nearer."""
    share: float = max(row["read_share"], row["compute_share"])
    return share


def _group(row: Row, rows: Sequence[Row]) -> str:
    """What tells the row's line from others: model and threads where there are several."""
    parts = []
    if len({other["model_type"] for other in rows}) > 1:
        parts.append(str(row["model_type"]))
    if len({other["n_threads"] for other in rows}) > 1:
        parts.append(f"{row['n_threads']} threads")
    return ", ".join(parts)


# -- charts -----------------------------------------------------------------------------------------------


def _tests(rows: Sequence[Row]) -> list[str]:
    figures = []
    for title, belongs in (("Prefill", _is_prefill), ("Decoding", _is_decode)):
        chosen = [row for row in rows if belongs(row)]
        bars = [
            Bar(
                " ".join(part for part in (row["test"], _group(row, rows)) if part),
                row["avg_ts"],
                f"{row['avg_ts']:.4g} tok/s, {_roof_share(row):.0%}",
                row["avg_ts"] / _roof_share(row),
            )
            for row in chosen
        ]
        if bars:
            note = "tokens per second; the mark is what the machine's nearer roof would allow"
            figures.append(figure(title, note, bar_chart(bars, title)))
    return figures


def _roofline(rows: Sequence[Row]) -> str:
    first = rows[0]
    rows = [row for row in rows if not (row["kind"] == "batch" and row["n_sequences"] == 1)]
    groups = list(dict.fromkeys(_phase(row) for row in rows))
    points = [
        Point(
            f"{row['model_type']} {row['test']}",
            row["operations"] / row["read_bytes"],
            row["gop_per_second"],
            groups.index(_phase(row)),
        )
        for row in rows
        if row["gop_per_second"] > 0
    ]
    peaks = [(kind, first[f"roof_{kind}_gop_per_second"]) for kind in ("int8", "bf16", "f32")]
    chart = roofline_chart(points, first["roof_read_gb_per_second"], peaks, groups)
    return figure("Roofline", "under the slope memory limits, under the flat lines arithmetic", chart)


def _phase(row: Row) -> str:
    if row["kind"] == "batch":
        return "batch"
    return "prefill" if _is_prefill(row) else "decoding"


def _lines(
    rows: Sequence[Row], title: str, belongs: Callable[[Row], bool], x_name: str, x_label: str
) -> list[str]:
    """A line chart where there are at least two places on its x axis."""
    chosen = [row for row in rows if belongs(row)]
    lines: dict[str, dict[float, float]] = {}
    for row in chosen:
        label = ", ".join(part for part in (*_varied(row, chosen), _group(row, rows)) if part) or title
        lines.setdefault(label, {})[row[x_name]] = row["avg_ts"]
    if len({x for line in lines.values() for x in line}) < 2:
        return []
    series = [Series(name, tuple(sorted(line.items()))) for name, line in lines.items()]
    return [figure(title, "tokens per second", line_chart(series, x_label, "tok/s"))]


def _varied(row: Row, rows: Sequence[Row]) -> list[str]:
    """What tells the row's line from those of the same chart."""
    parts = []
    if len({(other["n_prompt"], other["n_gen"]) for other in rows}) > 1:
        parts.append(str(row["test"]).split(" ")[0])
    if row["kind"] == "batch":
        parts.append("shared context" if row["is_shared"] else "own contexts")
        if len({other["n_depth"] for other in rows}) > 1:
            parts.append(f"{row['n_depth']} tokens before")
    return parts


def _stages(result: SuiteResult) -> list[str]:
    figures = []
    for profile in result.profiles:
        kept, rest = profile.stages[:_MOST_STAGES], profile.stages[_MOST_STAGES:]
        bars = [
            Bar(
                stage.label,
                stage.share,
                f"{stage.share:.1%}"
                + (
                    f", {stage.weight_bytes / stage.seconds / 1e9:.1f} GB/s"
                    if _reads(stage, profile.phase)
                    else ""
                )
                + (
                    f", {stage.operations / stage.seconds / 1e9:.0f} GOP/s"
                    if stage.operations and profile.phase == "prefill"
                    else ""
                ),
            )
            for stage in kept
            if stage.seconds > 0
        ]
        if rest:
            share = sum(stage.share for stage in rest)
            bars.append(Bar("others", share, f"{share:.1%}"))
        title = f"Time by kernel, {profile.phase}" + (
            f" after {profile.depth} tokens" if profile.depth else ""
        )
        several = len({(p.model, p.num_threads) for p in result.profiles}) > 1
        name = f"{profile.model}, {profile.num_threads} threads: " if several else ""
        figures.append(figure(title, f"{name}all layers together", bar_chart(bars, title)))
    return figures


def _reads(stage: object, phase: str) -> bool:
    return phase == "decode" and bool(getattr(stage, "weight_bytes", 0))


# -- figures and text -------------------------------------------------------------------------------------


def _tiles(rows: Sequence[Row]) -> str:
    """The page's first glance: the best prefill and decoding, and the roofs."""
    tiles = []
    for title, belongs in (("Prefill", _is_prefill), ("Decoding", _is_decode)):
        chosen = [row for row in rows if belongs(row)]
        if chosen:
            best = max(chosen, key=lambda row: float(row["avg_ts"]))
            which = "memory" if best["read_share"] >= best["compute_share"] else "arithmetic"
            tiles.append(
                (
                    title,
                    f"{best['avg_ts']:.4g}",
                    "tok/s",
                    f"{best['test']}, {_roof_share(best):.0%} of {which} roof",
                )
            )
    first = rows[0]
    tiles.append(("Reads", f"{first['roof_read_gb_per_second']:.1f}", "GB/s", "measured in this run"))
    tiles.append(("int8 peak", f"{first['roof_int8_gop_per_second']:.0f}", "GOP/s", "measured in this run"))
    return (
        '<div class="tiles">'
        + "".join(
            f"<div><h3>{escape(name)}</h3><p><b>{value}</b> {unit}</p><small>{escape(note)}</small></div>"
            for name, value, unit, note in tiles
        )
        + "</div>"
    )


def _tables(rows: Sequence[Row]) -> str:
    """The Markdown report's tables as HTML."""
    blocks = []
    for block in as_markdown(rows).split("\n\n")[1:]:
        if not block.startswith("|"):
            blocks.append(f"<p>{escape(block.replace('**', ''))}</p>")
            continue
        blocks.append(html_table(block))
    return "<h2>All figures</h2>" + "".join(blocks)


_READING = """<h2>How to read it</h2>
<p>Every step reads all weights once, and the keys and values of every sequence; <i>GB/s</i> is that by time, and
<i>of read</i> compares it with plainly reading memory, measured in this run. <i>GOP/s</i> counts two operations per
multiply-add; <i>of peak</i> compares it with dot products in registers, measured in this run. A test near 100 % of
one of them cannot become faster on this machine, except by other weights. A model that fits into the caches may read
faster than memory allows. Equal <i>logits</i> mean that the results are equal to the last bit.</p>"""

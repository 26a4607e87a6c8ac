"""Rows as text: Markdown tables for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from torchless.bench.profile import StageProfile
from torchless.bench.rows import Row

__all__ = ["as_csv", "as_json", "as_markdown", "markdown_table", "profile_table"]

Column = tuple[str, Callable[[Row], str]]

_SPEED: list[Column] = [
    ("test", lambda row: row["test"]),
    ("threads", lambda row: str(row["n_threads"])),
    ("tok/s", lambda row: f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"),
    ("GB/s", lambda row: f"{row['read_gb_per_second']:.1f}"),
    ("of read", lambda row: f"{row['read_share']:.0%}"),
    ("GOP/s", lambda row: f"{row['gop_per_second']:.0f}"),
    ("of peak", lambda row: f"{row['compute_share']:.0%}"),
    ("CPU", lambda row: f"{row['cpu_utilisation']:.0%}"),
    ("logits", lambda row: row["logits_hash"] if row["is_repeatable"] else "DIFFER"),
]
_LATENCY: list[Column] = [
    ("first token ms p50 / p95", lambda row: _pair(row, "first_token_ms")),
    ("next token ms p50 / p95", lambda row: _pair(row, "next_token_ms")),
    ("cold start ms", lambda row: f"{row['cold_start_ms_p50']:.0f}"),
    (
        "of it imports / load",
        lambda row: f"{row['cold_import_ms_p50']:.0f} / {row['cold_load_ms_p50']:.0f}",
    ),
]
_MEMORY: list[Column] = [
    ("peak MB", lambda row: f"{row['peak_bytes'] / 1e6:.0f}"),
    ("loaded MB", lambda row: f"{row['loaded_bytes'] / 1e6:.0f}"),
    ("peak / (file + KV)", lambda row: f"{row['peak_ratio']:.2f}"),
    ("KV bytes / token", lambda row: f"{row['kv_bytes_per_token']:.0f}"),
    ("allocations / token", lambda row: f"{row['allocations_per_token']:g}"),
    ("page faults / token", lambda row: f"{row['page_faults_per_token']:.2f}"),
    ("page faults, load", lambda row: str(row["load_page_faults"])),
]
_BY_KIND = {"latency": _LATENCY, "memory": _MEMORY}


def as_markdown(rows: Sequence[Row]) -> str:
    """Tables by kind under a line on each model and one on the machine."""
    if not rows:
        return "nothing was measured"
    first = rows[0]
    blocks = [
        f"{first['cpu_info']}, {first['isa']}, {first['engine']} {first['build_commit']}. Roofs: reads "
        f"{first['roof_read_gb_per_second']:.1f} GB/s, int8 {first['roof_int8_gop_per_second']:.0f}, bf16 "
        f"{first['roof_bf16_gop_per_second']:.0f}, f32 {first['roof_f32_gop_per_second']:.0f} GOP/s."
    ]
    for model in dict.fromkeys(row["model_type"] for row in rows):
        mine = [row for row in rows if row["model_type"] == model]
        size, parameters = mine[0]["model_size"] / 1e6, mine[0]["model_n_params"] / 1e6
        cache = (
            mine[0]["type_k"]
            if mine[0]["type_k"] == mine[0]["type_v"]
            else "{type_k}/{type_v}".format(**mine[0])
        )
        mode = ", fast" if mine[0].get("fast") else ""
        lazy = mine[0].get("lazy", "off")
        mode += "" if lazy == "off" else f", weights in the file: {lazy}"
        blocks.append(f"**{model}**: {size:.0f} MB, {parameters:.0f} M parameters, {cache} cache{mode}")
        for kind in dict.fromkeys(row["kind"] for row in mine):
            columns = _SPEED + _BY_KIND.get(kind, [])
            same_kind = [row for row in mine if row["kind"] == kind]
            cells = [[text(row) for _, text in columns] for row in same_kind]
            blocks.append(markdown_table([name for name, _ in columns], cells))
    return "\n\n".join(blocks)


def as_json(rows: Sequence[Row]) -> str:
    """An array of objects, as llama-bench prints."""
    return json.dumps(rows, indent=1)


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row; lists and objects as JSON inside a cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name, "")) for name in names])
    return text.getvalue().rstrip("\n")


def profile_table(profile: StageProfile) -> str:
    """Where the time of a phase goes, slowest first."""
    cells = [
        [
            stage.label,
            f"{stage.seconds * 1e6:.1f}",
            f"{stage.share:.1%}",
            f"{stage.weight_bytes / stage.seconds / 1e9:.1f}" if is_decode and stage.weight_bytes else "",
            f"{stage.operations / stage.seconds / 1e9:.0f}" if stage.operations else "",
        ]
        for is_decode in [profile.phase == "decode"]
        for stage in profile.stages
        if stage.seconds > 0
    ]
    at = f" @ d{profile.depth}" if profile.depth else ""
    title = f"**{profile.model}**, {profile.phase}{at}, {profile.num_threads} threads"
    header = ["stage (all layers)", "us/token", "share", "GB/s", "GOP/s"]
    return f"{title}\n\n{markdown_table(header, cells)}"


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table whose source is readable too: columns are padded, all but the first aligned to the right."""
    widths = [max(len(row[i]) for row in (header, *cells)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(header), rule, *map(line, cells)])


def _pair(row: Row, name: str) -> str:
    return f"{row[f'{name}_p50']:.1f} / {row[f'{name}_p95']:.1f}"


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, (list, dict)) else value

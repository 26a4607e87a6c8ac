"""Before and after: rows of two benches side by side, for a pull request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchless.bench.rows import Row, case_key
from torchless.bench.tables import markdown_table

__all__ = ["compare_rows"]

_SIGNIFICANT = 2.0  # standard errors of the difference


def compare_rows(before: Sequence[Row], after: Sequence[Row]) -> str:
    """A Markdown table with a ratio per test that both have, and a sentence on the others.

    A ratio whose difference is less than twice its standard error is marked ``~``: noise. Where machines differ in
    speed between the runs, the share of the roof tells more than tok/s; both are shown.
    """
    old = {case_key(row): row for row in before}
    new = {case_key(row): row for row in after}
    common = [key for key in new if key in old]
    cells = [_cells(old[key], new[key]) for key in common]
    blocks = []
    if common:
        header = ["test", "model", "threads", "before tok/s", "after tok/s", "ratio", "of roof", "logits"]
        blocks.append(markdown_table(header, cells))
        blocks.append(_mean(cells))
        first, last = old[common[0]], new[common[0]]
        blocks.append(
            f"Before: {first['build_commit']}, {first['cpu_info']}, reads {first['roof_read_gb_per_second']:.1f} "
            f"GB/s. After: {last['build_commit']}, {last['cpu_info']}, reads "
            f"{last['roof_read_gb_per_second']:.1f} GB/s."
        )
    for rows, others, which in ((old, new, "before"), (new, old, "after")):
        alone = [f"{row['test']} of {row['model_type']}" for key, row in rows.items() if key not in others]
        if alone:
            blocks.append(f"Only {which}: {', '.join(alone)}.")
    return "\n\n".join(blocks) if blocks else "no test is in both"


def _cells(old: Row, new: Row) -> list[str]:
    ratio = new["avg_ts"] / old["avg_ts"]
    roof_old, roof_new = (max(row["read_share"], row["compute_share"]) for row in (old, new))
    same = old["logits_hash"] == new["logits_hash"]
    return [
        new["test"] if new["kind"] in ("generation", "batch") else f"{new['test']} ({new['kind']})",
        str(new["model_type"]),
        str(new["n_threads"]),
        f"{old['avg_ts']:.2f} ± {old['stddev_ts']:.2f}",
        f"{new['avg_ts']:.2f} ± {new['stddev_ts']:.2f}",
        f"{'~' if _is_noise(old, new) else ''}{ratio:.3f} x",
        f"{roof_old:.0%} -> {roof_new:.0%}",
        "same" if same else "changed",
    ]


def _is_noise(old: Row, new: Row) -> bool:
    """Whether the difference of the averages is within twice its standard error."""
    variances = (row["stddev_ts"] ** 2 / max(len(row["samples_ts"]), 1) for row in (old, new))
    return bool(abs(new["avg_ts"] - old["avg_ts"]) <= _SIGNIFICANT * math.sqrt(sum(variances)))


def _mean(cells: Sequence[Sequence[str]]) -> str:
    ratios = [float(row[5].strip("~ x")) for row in cells]
    return f"Geometric mean of the ratios: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f} x."

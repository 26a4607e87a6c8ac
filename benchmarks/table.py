"""One Markdown table of several saved runs of compare_peers: `python benchmarks/table.py RUN.json ...`."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from report import OURS

COLUMNS = ("model", "test", "tok/s", "vs llama.cpp's default", "vs --repack 0", "of read bandwidth")
PEERS = ("llama-default", "llama-plain")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="table.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="made by compare_peers --save")
    rows = [
        row for path in parser.parse_args(arguments).runs for row in rows_of(json.loads(path.read_text()))
    ]
    print(markdown(rows))


def rows_of(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The cells of each test of a run. Ratios and shares are medians of those within the rounds; a share of the read
    bandwidth counts the file's bytes, so only decoding at depth 0 has one.
    """
    model = Path(results["options"]["model"]).stem
    rows = []
    for test, speeds in results["tests"].items():
        ours = speeds[OURS]["values"]
        ratios = [_ratio(ours, speeds[peer]["values"]) if peer in speeds else "-" for peer in PEERS]
        rows.append((model, test, f"{speeds[OURS]['median']:.1f}", *ratios, _share(results, test, ours)))
    return rows


def markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _ratio(ours: list[float], theirs: list[float]) -> str:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} .. {max(ratios):.2f})"


def _share(results: dict[str, Any], test: str, ours: list[float]) -> str:
    bandwidth = results["read_bytes_per_second"]
    if bandwidth is None or not test.startswith("tg") or "@" in test or " x " in test:
        return "-"
    size = results["file_bytes"]
    shares = [speed * size / read for speed, read in zip(ours, bandwidth["values"], strict=True)]
    return f"{statistics.median(shares):.0%}"


if __name__ == "__main__":
    main()

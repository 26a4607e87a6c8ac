"""The page of a bench: complete, self-contained, sound for any names and figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from torchless.bench.charts import Bar, Series, bar_chart, line_chart
from torchless.bench.profile import StageProfile, StageTime
from torchless.bench.report import report_page
from torchless.bench.suite import SuiteResult


def _row(kind: str, prompt: int, new: int, depth: int, sequences: int = 1, **changes: Any) -> dict[str, Any]:
    test = f"{'pp' if prompt else 'tg'}{prompt or new} @ d{depth}"
    row = {
        "kind": kind,
        "test": test,
        "n_prompt": prompt,
        "n_gen": new,
        "n_depth": depth,
        "n_sequences": sequences,
        "is_shared": False,
        "model_type": "<b>m</b>",
        "n_threads": 2,
        "avg_ts": 100.0 + depth,
        "stddev_ts": 1.0,
        "read_share": 0.5,
        "compute_share": 0.2,
        "read_bytes": 10**9,
        "operations": 4 * 10**9,
        "gop_per_second": 50.0,
        "read_gb_per_second": 12.0,
        "roof_read_gb_per_second": 25.0,
        "roof_int8_gop_per_second": 900.0,
        "roof_bf16_gop_per_second": 450.0,
        "roof_f32_gop_per_second": 220.0,
        "cpu_utilisation": 1.0,
        "logits_hash": "ab",
        "is_repeatable": True,
        "cpu_info": "a CPU",
        "isa": "avx2",
        "engine": "torchless 1",
        "build_commit": "c",
        "type_k": "f16",
        "type_v": "f16",
        "test_time": "now",
        "model_size": 10**9,
        "model_n_params": 10**9,
    }
    return {**row, **changes}


def _svgs(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_a_full_bench_has_all_charts_and_needs_nothing_else() -> None:
    rows = [
        _row("generation", prompt, new, depth) for depth in (0, 4096) for prompt, new in ((512, 0), (0, 128))
    ]
    rows += [_row("batch", 0, 32, 512, n) for n in (1, 4, 16)]
    rows += [_row("batch", 0, 32, 512, n, is_shared=True) for n in (4, 16)]
    stages = (StageTime("ffn_up Q4_K", 1e-3, 0.8, 1000, 500.0), StageTime("attention", 1e-4, 0.2))
    page = report_page(
        SuiteResult(rows, [StageProfile("m", phase, 0, 2, stages) for phase in ("prefill", "decode")])
    )
    titles = re.findall(r"<figcaption><h2>(.*?)</h2>", page)
    assert titles == [
        *("Prefill", "Decoding", "Roofline", "Decoding, by depth", "Prefill, by depth"),
        *("Decoding together, by number of sequences", "Time by kernel, prefill", "Time by kernel, decode"),
    ]
    assert len(_svgs(page)) == len(titles)
    assert "<b>m</b>" not in page and "&lt;b&gt;m&lt;/b&gt;" in page
    assert not re.search(r"https?://|<script|<link|src=|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_a_single_test_makes_a_page_too() -> None:
    page = report_page(SuiteResult([_row("generation", 0, 8, 0)], []))
    assert re.findall(r"<figcaption><h2>(.*?)</h2>", page) == ["Decoding", "Roofline"]


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0, 123456.0])
def test_charts_stay_inside_their_frame(value: float) -> None:
    line = line_chart([Series("a", ((0, value), (1, value / 2)))], "x", "y")
    bars = bar_chart([Bar("a long label" * 9, value, "t", value * 2), Bar("b", 0.0, "t")], "bars")
    for svg in map(ET.fromstring, (line, bars)):
        width, height = map(float, svg.attrib["viewBox"].split()[2:])
        for item in svg.iter():
            for key in ("x", "x1", "x2", "cx"):
                assert -1 <= float(item.attrib.get(key, 0)) <= width
            for key in ("y", "y1", "y2", "cy"):
                assert -1 <= float(item.attrib.get(key, 0)) <= height

"""``torchless plan`` on a tiny shape, everything measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torchless._core")


def test_the_command_line_measures_a_small_model(cli, tmp_path: Path):
    status, out, _ = cli(
        *("plan", "--synthetic", "test", "--recipe", "Q8_0,Q4_0", "--memory", "1GiB", "-c", "256"),
        *("-o", "json", "--report", str(tmp_path / "plan.html")),
    )
    assert status == 0
    values = json.loads(out)
    assert values["choice"]["recipe"] == "Q8_0"
    assert [row["recipe"] for row in values["rows"]] == ["as it is", "Q8_0", "Q4_0"]
    assert all(
        row["decode_tokens_per_second"] > 100 and row["process_bytes"] > 20 << 20 for row in values["rows"]
    )
    assert "<svg" in (tmp_path / "plan.html").read_text()
    assert cli("plan", "model.gguf", "--synthetic", "test")[0] == 2

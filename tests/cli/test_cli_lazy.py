"""``--lazy`` on the command line: the same text, the speed to expect, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_processes import torchless as run_cli

from torchless.bench.synthetic import write_synthetic

pytest.importorskip("torchless._core")


def test_run_says_what_to_expect_and_writes_the_same(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    write_synthetic(model, "test-moe", "Q4_K_M")
    asked = ("run", model, "the", "-n", 5, "--seed", 1, "--ignore-eos")
    expected = run_cli(*asked)
    assert expected.status == 0 and "stay in the file" not in expected.err
    for flags in (["--lazy"], ["--lazy-experts"], ["--lazy", "--memory", "30M", "-c", "64"]):
        lazy = run_cli(*asked, *flags)
        assert (lazy.status, lazy.out) == (0, expected.out)
        if "--memory" not in flags:
            assert "of weights stay in the file" in lazy.err and "tokens/s" in lazy.err


def test_refusals_name_the_flag(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    write_synthetic(model, "test", "BF16")
    refused = run_cli("run", model, "the", "--lazy", "--quant", "Q4_0")
    assert refused.status == 1 and "--lazy weights" in refused.err and "quant" in refused.err
    refused = run_cli("run", model, "the", "--memory", "much")
    assert refused.status == 1 and "'much' is not a size" in refused.err
    refused = run_cli("run", model, "the", "--memory", "1M")
    assert refused.status == 1 and "the given memory" in refused.err

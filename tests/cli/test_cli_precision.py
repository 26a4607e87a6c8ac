"""Number formats on the command line: activations as a flag, weights mixed by ``quantize --tensor-type``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cli_processes import torchless as run_cli
from executors import logits_of, open_executor

import torchless
from torchless.weights.open import open_source

core = pytest.importorskip("torchless._core")


def nmse(found: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    return float(np.square(found - exact, dtype=np.float64).sum() / np.square(exact, dtype=np.float64).sum())


def test_the_command_line_sets_and_shows_activations() -> None:
    ran = run_cli("run", "Once", "-n", "3", "--temp", "0", "--activations", "f32", "--stats")
    assert ran.status == 0
    assert "f32 activations" in ran.err
    shown = json.loads(run_cli("show", "--json", "--activations", "bf16").out)
    assert {item["activations"] for item in shown["types"] if item["type"].startswith("Q")} == {"bf16"}
    stages = run_cli("show", "--stages", "--activations", "bf16").out
    assert "-> bf16[" in stages and "int8" not in stages
    refused = run_cli("run", "Once", "--activations", "int4")
    assert refused.status == 2
    assert "'int4' is not one of 'int8', 'bf16', 'f32'" in refused.err


def test_the_command_line_sets_and_shows_fast_mode(shared_data: Callable[[str], Path]) -> None:
    if core.isa() != "avx512":
        pytest.skip("only avx512 has a fast mode")
    model = str(shared_data("stories260K-wide256/s260k-wide-Q4_K_M.gguf"))
    ran = run_cli("run", model, "Once", "-n", "3", "--temp", "0", "--fast", "--stats")
    assert ran.status == 0
    assert "int8 activations, fast prompts" in ran.err
    rows = json.loads(run_cli("bench", model, "-p", "64", "-n", "1", "-r", "1", "--fast", "-o", "json").out)
    exact = json.loads(run_cli("bench", model, "-p", "64", "-n", "1", "-r", "1", "-o", "json").out)
    assert [row["fast"] for row in rows + exact] == [True, True, False, False]
    same = [fast["logits_hash"] == slow["logits_hash"] for fast, slow in zip(rows, exact, strict=True)]
    assert same == [False, True]  # the prompt, and a decoded token


@pytest.mark.parametrize("attention", ["F16", "BF16"])
def test_attention_in_floats_with_an_int4_mlp(
    attention: str, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source, mixed, small = (
        shared_data("stories260K-wide256/s260k-wide-F32.gguf"),
        tmp_path / "mixed.gguf",
        tmp_path / "small.gguf",
    )
    rules = [f"--tensor-type=attn_.*={attention}", "--tensor-type=ffn_.*=Q4_0"]
    assert run_cli("quantize", str(source), str(mixed), "Q4_0", *rules).status == 0
    assert run_cli("quantize", str(source), str(small), "Q4_0").status == 0
    types = {name: info.type for name, info in open_source(mixed).tensors.items() if len(info.shape) == 2}
    assert {kind for name, kind in types.items() if ".attn_" in name} == {attention}
    assert {kind for name, kind in types.items() if ".ffn_" in name} == {"Q4_0"}
    with torchless.load(source, threads=1) as model:
        ids = [
            int(i)
            for i in model.tokenizer.encode("Once upon a time there was a little dog who liked to run.")
        ]
    exact = logits_of(open_executor(source, "reference"), ids, 64)
    errors = [nmse(logits_of(open_executor(path), ids, 64), exact) for path in (mixed, small)]
    assert errors[0] < errors[1]
    answer = run_cli("run", str(mixed), "Once upon a time", "-n", "8", "--temp", "0")
    assert answer.status == 0 and len(answer.out) > 10

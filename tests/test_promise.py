"""The promise: the same bits for any chunking, thread count and batch, on every instruction-set level."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import torchless
from torchless.bench.synthetic import write_synthetic

core = pytest.importorskip("torchless._core")

REAL = ["stories260K-f32.gguf", "stories260K-f16.gguf", "stories260K-BF16.gguf", "stories260K-Q8_0.gguf"]
SYNTHETIC = ["Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32"]
SYNTHETIC += ["IQ4_NL", "IQ4_XS", "MXFP4", "Q2_K", "Q3_K_M"]
LEVELS = ["scalar", "avx2", "avxvnni", "avx512", "amx"]


def check(model: Path, level: str, kv: str, length: int = 150, activations: str = "int8") -> str:
    if level not in core.isa_levels():
        pytest.skip(f"this machine has no {level}")
    worker = Path(__file__).with_name("promise_worker.py")
    result = subprocess.run(
        [sys.executable, str(worker), str(model), kv, str(length), activations],
        env={**os.environ, "TORCHLESS_ISA": level},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", REAL)
def test_real_model_gives_the_same_bits(name: str, level: str, shared_data: Callable[[str], Path]) -> None:
    check(shared_data(f"stories260K/{name}"), level, "f16")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("recipe", SYNTHETIC)
def test_random_model_gives_the_same_bits(recipe: str, level: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", recipe)
    check(model, level, "f16")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0", "BF16"])
def test_a_mixture_of_experts_gives_the_same_bits(recipe: str, level: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test-moe", recipe)
    check(model, level, "f16")


@pytest.mark.parametrize(
    ("level", "activations"),
    [("scalar", "f32"), *((level, kind) for level in LEVELS[1:] for kind in ("bf16", "f32"))],
)
def test_activations_in_floats_give_the_same_bits(level: str, activations: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", "Q4_K_M", layers=1)
    check(model, level, "f16", activations=activations)


def test_fast_mode_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", "Q4_K_M", layers=1)
    fast = check(model, "avx512", "f16", activations="fast")
    assert fast != check(model, "avx512", "f16")
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    assert check(model, "avx512", "f16", activations="fast") == fast


@pytest.mark.parametrize("recipe", ["Q3_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "Q8_0"])
def test_every_format_gives_the_same_bits_in_fast_mode(recipe: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", recipe, layers=1)
    check(model, "avx512", "f16", activations="fast")


@pytest.mark.parametrize("activations", ["bf16", "f32"])
def test_experts_and_unfused_stages_with_activations_in_floats(
    activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test-moe", "Q4_K_M", layers=1)
    fused = check(model, core.isa(), "f16", activations=activations)
    assert fused != check(model, core.isa(), "f16")
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    assert check(model, core.isa(), "f16", activations=activations) == fused


@pytest.mark.parametrize("level", ["scalar", "avx2", "avxvnni", "avx512", "amx"])
@pytest.mark.parametrize("recipe", ["Q4_K_M", "F32"])
def test_a_hybrid_with_recurrent_state_gives_the_same_bits(recipe: str, level: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test-hybrid", recipe)
    check(model, level, "f16")


@pytest.mark.parametrize("kv", ["f32", "bf16", "q8_0", "q4_0", "k=q8_0,v=f16"])
def test_every_kv_type_gives_the_same_bits(kv: str, tmp_path: Path) -> None:
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", "Q4_K_M")
    check(model, core.isa(), kv)


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_context_of_several_ranges_gives_the_same_bits(kv: str, tmp_path: Path) -> None:
    """Two threads split its ranges between them; one thread, and a large chunk, do not."""
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", "Q4_K_M", layers=1)
    check(model, core.isa(), kv, length=1200)


def test_built_in_model_gives_the_same_bits() -> None:
    check(Path(torchless.__file__).parent / "data" / "stories.gguf", core.isa(), "f16")

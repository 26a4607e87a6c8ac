"""Models that stay in their files: the bits of packed ones on every level, bounded memory, clear refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from executors import logits_of, open_executor

import torchless
from torchless.backends import cpu
from torchless.backends.base import ExecutorOptions
from torchless.bench.synthetic import write_synthetic
from torchless.conversion.convert import convert
from torchless.errors import FormatError, InvalidRequestError, OutOfMemoryError
from torchless.models import record_plan
from torchless.weights.open import open_source

core = pytest.importorskip("torchless._core")

LEVELS = ["scalar", "avx2", "avxvnni", "avx512", "amx"]
RECIPES = ["Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32"]
RECIPES += ["IQ4_NL", "IQ4_XS", "MXFP4", "Q2_K", "Q3_K_M"]
MODELS = [*(("test", recipe) for recipe in RECIPES), ("test-moe", "Q4_K_M"), ("test-hybrid", "Q4_K_M")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("lazy")
    paths = [folder / f"{shape}-{recipe}.gguf" for shape, recipe in MODELS]
    for path, (shape, recipe) in zip(paths, MODELS, strict=True):
        write_synthetic(path, shape, recipe, layers=1 if shape == "test" else None)
    return paths


def compare(level: str, activations: str, files: list[Path], **changes: str) -> None:
    if level not in core.isa_levels():
        pytest.skip(f"this machine has no {level}")
    worker = Path(__file__).with_name("lazy_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), activations, *map(str, files)],
        env={**os.environ, "TORCHLESS_ISA": level, **changes},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_every_format_gives_the_bits_of_packed_weights(level: str, files: list[Path]) -> None:
    compare(level, "int8", files)


@pytest.mark.parametrize("activations", ["bf16", "f32"])
def test_so_do_activations_in_floats(activations: str, files: list[Path]) -> None:
    compare(core.isa(), activations, [path for path in files if "Q4_K_M" in path.name])


def test_so_do_unfused_stages(files: list[Path]) -> None:
    compare(core.isa(), "int8", [path for path in files if "Q4_K_M" in path.name], TORCHLESS_FUSE="0")


def test_rows_of_fused_tensors_and_groups_of_gated_columns(tmp_path: Path) -> None:
    """Phi-3 has q, k and v in one tensor and gate and up in another."""
    write_synthetic(tmp_path / "m.gguf", "phi-3-mini", "Q4_0", layers=1)
    packed = open_executor(tmp_path / "m.gguf", threads=2, pages=8)
    lazy = open_executor(tmp_path / "m.gguf", threads=2, pages=8, lazy="all")
    assert "gated_matmul" in str(lazy.lowered)  # type: ignore[attr-defined]
    ids = np.random.default_rng(0).integers(0, packed.vocab_size, 70).tolist()
    expected = logits_of(packed, ids, 70)
    for chunk in (70, 9):
        np.testing.assert_array_equal(logits_of(lazy, ids, chunk), expected)


@pytest.mark.parametrize(("shape", "recipe"), [("test", "BF16"), ("test-moe", "F32")])
def test_safetensors_folders_stay_where_they_are(shape: str, recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", shape, recipe)
    convert(tmp_path / "m.gguf", tmp_path / "folder")
    packed = open_executor(tmp_path / "folder", threads=2)
    lazy = open_executor(tmp_path / "folder", threads=2, lazy="all")
    assert lazy.memory_bytes()["weights"] < packed.memory_bytes()["weights"] / 10
    ids = np.random.default_rng(0).integers(0, packed.vocab_size, 40).tolist()
    np.testing.assert_array_equal(logits_of(lazy, ids, 7), logits_of(packed, ids, 40))


@pytest.mark.parametrize("shape", ["test", "test-moe"])
@pytest.mark.parametrize("packed_bytes", [0, 300_000])
def test_memory_is_what_was_announced(shape: str, packed_bytes: int, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", shape, "Q4_K_M")
    source = open_source(tmp_path / "m.gguf")
    plan, _ = record_plan(source)
    options = ExecutorOptions(8, 64, 64, 2, lazy="all", packed_bytes=packed_bytes)
    announced = cpu.required_bytes(plan, source, options)
    used = cpu.compile(plan, source, options).memory_bytes()
    assert announced["weights"] <= packed_bytes
    assert announced["weights"] <= used["weights"] <= announced["weights"] + 100_000  # vectors come on top
    assert used["scratch"] <= announced["scratch"] + 8192
    assert used["file"] == announced["file"] > 0


_PROCESS = """
import re, sys, torchless, torchless.loading, torchless.weights.open
path, lazy, memory = sys.argv[1:]
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
torchless.load(threads=2).generate("a", max_tokens=2)
tokenizer = torchless.loading.tokenizer_of(torchless.weights.open.open_source(path))
base = peak()
model = torchless.load(path, ctx=256, threads=2, lazy=bool(int(lazy)), memory=memory or None)
done = model.generate(list(range(1, 100)), max_tokens=4, seed=0, ignore_eos=True, logits_hash=True)
print(peak() - base, model.info["memory_bytes"]["weights"], done.logits_hash)
"""


def run_process(path: Path, lazy: bool, memory: str) -> tuple[int, int, str]:
    arguments = [sys.executable, "-c", _PROCESS, str(path), str(int(lazy)), memory]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peak, weights, logits = done.stdout.split()
    return int(peak), int(weights), logits


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory was used")
def test_a_file_of_400_mb_runs_in_100(tmp_path: Path) -> None:
    """Beside the interpreter, the libraries and the tokenizer."""
    path = tmp_path / "m.gguf"
    write_synthetic(path, "llama-3.2-1b", "Q8_0", layers=2)
    assert path.stat().st_size > 400e6
    peak, weights, logits = run_process(path, True, "100M")
    assert 20 << 20 < weights < 100 << 20
    assert peak < 100 << 20
    _, eager, expected = run_process(path, False, "")
    assert eager > 300 << 20
    assert logits == expected


def test_the_speed_to_expect_is_measured(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test-moe", "Q4_K_M")
    with torchless.load(tmp_path / "m.gguf", lazy="experts") as model:
        speed = model.file_speed
        assert speed is not None and model.info["lazy"] == speed.json()
        assert 0 < speed.file_bytes_per_token < speed.file_bytes  # a token chooses some experts
        assert speed.tokens_per_second > 1 and speed.packed_bytes > 0 and speed.is_cached
        assert "stay in the file" in str(speed) and "tokens/s" in str(speed)
    with torchless.load(tmp_path / "m.gguf", lazy=True, memory="100M") as model:
        assert model.file_speed is None  # all of it fits
        assert model.info["lazy"] is None


def test_a_file_that_was_cut_while_mapped_is_an_error(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "Q8_0")
    with torchless.load(tmp_path / "m.gguf", lazy=True) as model:
        model.generate([1, 2], max_tokens=1)
        os.truncate(tmp_path / "m.gguf", (tmp_path / "m.gguf").stat().st_size - 50_000)
        with pytest.raises(
            FormatError, match=r"m.gguf: the file had \d+ bytes when it was opened and now has"
        ):
            model.generate([1, 2], max_tokens=1)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "BF16")
    with pytest.raises(InvalidRequestError, match="quant cannot change them"):
        torchless.load(tmp_path / "m.gguf", lazy=True, quant="Q4_0")
    with pytest.raises(InvalidRequestError, match="backend 'cpu', not 'reference'"):
        torchless.load(tmp_path / "m.gguf", lazy=True, backend="reference")
    with pytest.raises(InvalidRequestError, match="lazy must be True, False or \"experts\", got 'some'"):
        torchless.load(tmp_path / "m.gguf", lazy="some")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="memory must be a size"):
        torchless.load(tmp_path / "m.gguf", memory=-1)
    with pytest.raises(OutOfMemoryError, match="the given memory"):
        torchless.load(tmp_path / "m.gguf", memory="3M", ctx=64, batch_tokens=16, threads=1)

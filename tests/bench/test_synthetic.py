"""Synthetic models: real shapes and recipes, sane weights, same bytes always. Oracle: the gguf package."""

from __future__ import annotations

import hashlib
import math
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
from other_decoders import decoded_by_another

import torchless
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.bench.recipes import RECIPES, find_recipe
from torchless.bench.shapes import SHAPES, find_shape, tensor_shapes
from torchless.bench.synthetic import main, synthetic_metadata, synthetic_tensors, write_synthetic
from torchless.errors import InvalidRequestError

HALF_OFFSETS = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0]}
HALF_OFFSETS |= {"IQ4_NL": [0], "IQ4_XS": [0], "Q2_K": [80, 82], "Q3_K": [108]}
HALF_OFFSETS |= {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64]}
HALF_OFFSETS |= {
    name: [0] for name in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "Q1_0", "Q2_0")
}


def _blocks(name: str, num_weights: int, std: float, seed: int = 0) -> np.ndarray:
    return np.concatenate(
        [chunk.copy() for chunk in random_blocks(BLOCK_TYPES[name], num_weights, std, [seed])]
    )


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_block_sizes_are_those_of_the_format(name: str) -> None:
    if name not in gguf.GGMLQuantizationType.__members__:
        pytest.skip("newer than the gguf package")
    expected = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    assert (BLOCK_TYPES[name].num_weights, BLOCK_TYPES[name].num_bytes) == expected


@pytest.mark.parametrize("row_length", [256, 2048, 14336])
@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_decoded_weights_have_mean_zero_and_the_wanted_spread(name: str, row_length: int) -> None:
    std = 1 / math.sqrt(row_length)
    raw = _blocks(name, 1 << 18, std)
    weights = decoded_by_another(name, raw).astype(np.float64)
    assert np.isfinite(weights).all()
    # Floats have a power of two as their scale, so their spread is right to a factor of sqrt(2) only.
    low, high = (0.7, 1.42) if name in ("F32", "F16", "BF16") else (0.97, 1.03)
    assert low < weights.std() / std < high
    assert abs(weights.mean()) < 0.02 * std
    assert np.abs(weights).max() < 8 * std


@pytest.mark.parametrize("name", HALF_OFFSETS)
def test_no_scale_is_a_denormal_half(name: str) -> None:
    blocks = _blocks(name, 1 << 17, 1 / math.sqrt(14336)).reshape(-1, BLOCK_TYPES[name].num_bytes)
    for offset in HALF_OFFSETS[name]:
        scales = np.abs(blocks[:, offset : offset + 2].copy().view("<f2").astype(np.float32))
        assert scales.min() >= np.finfo(np.float16).smallest_normal


def test_the_same_seed_gives_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256(_blocks("Q4_K", 1 << 20, 1 / 64)).hexdigest()
    assert digest[:16] == "3f99d6fd8f7a9b92"
    assert hashlib.sha256(_blocks("Q4_K", 1 << 20, 1 / 64, seed=1)).hexdigest() != digest


# Tensor counts by type that the loaders of well-known published files print.
@pytest.mark.parametrize(
    ("shape", "recipe", "expected"),
    [
        ("llama-3.2-1b", "Q4_K_M", {"F32": 34, "Q4_K": 96, "Q6_K": 17}),
        ("llama-3.2-3b", "Q4_K_M", {"F32": 58, "Q4_K": 168, "Q6_K": 29}),
        ("llama-3.1-8b", "Q4_K_M", {"F32": 66, "Q4_K": 193, "Q6_K": 33}),
        ("mistral-7b", "Q4_K_M", {"F32": 65, "Q4_K": 193, "Q6_K": 33}),
        ("mistral-7b", "Q4_K_S", {"F32": 65, "Q4_K": 217, "Q5_K": 8, "Q6_K": 1}),
        ("mistral-7b", "Q5_K_S", {"F32": 65, "Q5_K": 225, "Q6_K": 1}),
        ("mistral-7b", "Q5_K_M", {"F32": 65, "Q5_K": 193, "Q6_K": 33}),
        ("mistral-7b", "Q4_0", {"F32": 65, "Q4_0": 225, "Q6_K": 1}),
        ("mistral-7b", "Q5_1", {"F32": 65, "Q5_1": 225, "Q6_K": 1}),
        ("llama-3.2-1b", "Q8_0", {"F32": 34, "Q8_0": 113}),
        ("mistral-7b", "Q3_K_L", {"F32": 65, "Q3_K": 129, "Q5_K": 96, "Q6_K": 1}),
        ("mistral-7b", "Q3_K_M", {"F32": 65, "Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
        ("mistral-7b", "Q3_K_S", {"F32": 65, "Q3_K": 225, "Q6_K": 1}),
        ("mistral-7b", "Q2_K", {"F32": 65, "Q2_K": 129, "Q3_K": 64, "Q4_K": 32, "Q6_K": 1}),
        # By the rules of llama.cpp's quantiser.
        ("mistral-7b", "IQ4_XS", {"F32": 65, "IQ4_XS": 189, "Q5_K": 36, "Q6_K": 1}),
        ("llama-3.2-3b", "IQ4_NL", {"F32": 58, "IQ4_NL": 193, "Q5_K": 3, "Q6_K": 1}),
    ],
)
def test_recipes_give_the_types_of_published_files(shape: str, recipe: str, expected: dict[str, int]) -> None:
    tensors = synthetic_tensors(find_shape(shape), find_recipe(recipe), seed=0)
    types = Counter(block_type for _, _, block_type, _ in tensors)
    assert types == expected


# Parameter counts as published.
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ("tinyllama-1.1b", 1_100_048_384),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("mistral-7b", 7_241_732_096),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen3-0.6b", 596_049_920),
        ("phi-3-mini", 3_821_079_552),
        ("gemma-2-2b", 2_614_341_888),
    ],
)
def test_shapes_have_the_published_number_of_parameters(shape: str, parameters: int) -> None:
    counts = {name: math.prod(dims) for name, dims in tensor_shapes(find_shape(shape)).items()}
    counts.pop("rope_freqs.weight", None)  # A table, not parameters.
    assert sum(counts.values()) == parameters


@pytest.mark.parametrize(
    "recipe", [n for n in RECIPES if RECIPES[n].base in gguf.GGMLQuantizationType.__members__]
)
def test_file_opens_in_the_gguf_package_as_described(recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", "test", recipe)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    model = SHAPES["test"]
    found = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    assert found == tensor_shapes(model)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == model.num_layers
    tokens = fields["tokenizer.ggml.tokens"]
    assert len(tokens) == len(set(tokens)) == model.vocab_size
    for merge in fields["tokenizer.ggml.merges"]:
        assert merge.replace(" ", "") in tokens and {*merge.split()} <= {*tokens}


def test_frequency_factors_are_those_of_the_published_model() -> None:
    tensors = synthetic_tensors(find_shape("llama-3.2-1b"), find_recipe("Q4_0"), seed=0)
    factors = next(next(chunks).view("<f4") for name, _, _, chunks in tensors if name == "rope_freqs.weight")
    # Fast pairs are left alone, slow ones stretched by the full factor, and three lie between.
    assert (factors[:15] == 1).all() and (factors[18:] == 32).all()
    # Independent of the code: the smooth rule in terms of frequencies, as the reference code has it.
    for j in range(15, 18):
        frequency = 500000.0 ** (-2 * j / 64)
        smooth = (8192 / (2 * math.pi / frequency) - 1) / (4 - 1)
        assert factors[j] == pytest.approx(frequency / ((1 - smooth) * frequency / 32 + smooth * frequency))


def test_memory_stays_small_while_a_large_file_is_written(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_synthetic(tmp_path / "model.gguf", "tinyllama-1.1b", "Q8_0", layers=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "model.gguf").stat().st_size > 150e6
    assert peak < 50e6


RUN = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q6_K", "Q4_K_M", "Q5_K_M", "IQ4_NL", "IQ4_XS", "MXFP4"]
RUN += [
    "Q2_K",
    "Q3_K_M",
    "IQ3_S",
    "IQ3_XXS",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "IQ1_M",
    "IQ1_S",
    "TQ1_0",
    "TQ2_0",
]
RUN += ["NVFP4", "Q1_0", "Q2_0"]


@pytest.mark.parametrize("recipe", RUN)
def test_torchless_runs_it_with_logits_of_ordinary_size(recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", "test", recipe)
    with torchless.load(tmp_path / "model.gguf", ctx=64, threads=1, backend="reference") as model:
        logits = model.logits(list(range(32)))
        assert np.isfinite(logits).all()
        assert 0.3 < logits.std() < 3
        text = bytes(range(256)).decode("latin-1")
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_llama_cpp_runs_it_and_agrees(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    write_synthetic(tmp_path / "model.gguf", "test", "F32")
    theirs = llama_cpp.Llama(str(tmp_path / "model.gguf"), n_ctx=64, logits_all=True, verbose=False)
    theirs.eval(list(range(32)))
    with torchless.load(tmp_path / "model.gguf", ctx=64, backend="reference") as model:
        ours = model.logits(list(range(32)))
    np.testing.assert_allclose(np.array(theirs.scores[:32]), ours, atol=0.02)  # An f16 cache there.


def test_unknown_names_are_refused_with_what_exists(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"'llama-9'.*llama-3\.2-1b"):
        write_synthetic(tmp_path / "x.gguf", "llama-9", "F16")
    with pytest.raises(InvalidRequestError, match=r"'Q9'.*Q4_K_M"):
        write_synthetic(tmp_path / "x.gguf", "test", "Q9")
    with pytest.raises(InvalidRequestError, match="layers=0"):
        write_synthetic(tmp_path / "x.gguf", "test", "F16", layers=0)
    assert list(tmp_path.iterdir()) == []


def test_command_line_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test:q4_k_m", str(tmp_path / "x.gguf")]) == 0
    assert gguf.GGUFReader(tmp_path / "x.gguf").fields["general.file_type"].contents() == 15
    assert main(["test:Q9", str(tmp_path / "y.gguf")]) == 1
    assert main(["test"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_rows_that_are_no_whole_blocks_get_smaller_blocks() -> None:
    types = {
        name: block_type
        for name, _, block_type, _ in synthetic_tensors(
            find_shape("qwen2.5-0.5b"), find_recipe("Q4_K_M"), seed=0
        )
    }
    assert types["blk.5.ffn_up.weight"] == "Q5_0"  # rows of 896 weights
    assert types["blk.5.ffn_down.weight"] in ("Q4_K", "Q6_K")  # 4864 = 19 * 256
    assert types["token_embd.weight"] == "Q8_0"


@pytest.mark.parametrize("shape", ["qwen2.5-0.5b", "qwen3-0.6b", "phi-3-mini", "gemma-2-2b"])
def test_other_families_have_their_tensors(shape: str, tmp_path: Path) -> None:
    """Against the gguf package's list of each architecture's tensors."""
    model = find_shape(shape)
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == model.architecture)
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[arch]}
    for name in tensor_shapes(model):
        stem = name.rpartition(".")[0]
        assert re.sub(r"blk\.\d+", "blk.{bid}", stem) in known, name
    metadata = synthetic_metadata(model, find_recipe("Q4_0"), "x")
    assert metadata["general.architecture"] == model.architecture
    assert metadata[f"{model.architecture}.block_count"] == model.num_layers

"""Whole models against logits and texts computed by others, on both backends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import Run, logits_of, make_batch, open_executor

from torchless import quants
from torchless.backends.base import Executor
from torchless.quality.perplexity import score as perplexity
from torchless.text.tokenizer import Tokenizer
from torchless.weights.open import open_source

Find = Callable[[str], Path]


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu":
        pytest.importorskip("torchless._core")
    return str(request.param)


def greedy(executor: Executor, ids: list[int], count: int) -> list[int]:
    """The `count` most likely next ids, one after another."""
    run = Run(ids + [0] * count, 0)
    logits = executor.step(make_batch([(run, len(ids))]))[-1]
    for i in range(count):
        run.ids[len(ids) + i] = int(logits.argmax())
        if i + 1 < count:
            logits = executor.step(make_batch([(run, 1)]))[0]
    executor.release_pages(run.pages)
    return run.ids[len(ids) :]


@pytest.mark.parametrize("name", ["stories260K-f32.gguf", "hf"])
def test_stories_gives_the_golden_logits_and_ids(name: str, backend: str, shared_data: Find) -> None:
    golden = json.loads(shared_data("stories260K/golden.json").read_text())
    executor = open_executor(shared_data(f"stories260K/{name}"), backend, kv="f32")
    for case in golden:
        logits = logits_of(executor, case["ids"], len(case["ids"]))[-1]
        np.testing.assert_allclose(logits, case["logits_after_prompt"], rtol=0, atol=1e-4)
        assert greedy(executor, case["ids"], len(case["greedy"])) == case["greedy"]


def test_stories_in_half_precision_equals_the_reference_on_the_same_weights(shared_data: Find) -> None:
    """Rounding the weights moves the logits by 0.008, which flips one near-tie of the float32 golden: even exact
    arithmetic differs from it there. So the same file on the reference backend is the judge."""
    pytest.importorskip("torchless._core")
    path = shared_data("stories260K/stories260K-f16.gguf")
    reference, cpu = open_executor(path, "reference"), open_executor(path, "cpu", kv="f32")
    agreeing = 0
    for case in json.loads(shared_data("stories260K/golden.json").read_text()):
        ids = case["ids"] + case["greedy"][:100]
        np.testing.assert_allclose(logits_of(cpu, ids, 64), logits_of(reference, ids, 512), rtol=0, atol=1e-4)
        found = greedy(cpu, case["ids"], len(case["greedy"]))
        assert found == greedy(reference, case["ids"], len(case["greedy"]))
        agreeing += found == case["greedy"]
    assert agreeing >= 6


@pytest.mark.parametrize("kv", ["f16", "bf16"])
def test_half_precision_cache_moves_logits_only_a_little(kv: Any, shared_data: Find) -> None:
    pytest.importorskip("torchless._core")
    path = shared_data("stories260K/stories260K-f32.gguf")
    ids = json.loads(shared_data("stories260K/golden.json").read_text())[0]["greedy"]
    exact, rounded = (logits_of(open_executor(path, kv=kind), ids, 64) for kind in ("f32", kv))
    error = np.square(exact - rounded).mean() / np.square(exact).mean()
    assert 0 < error < (1e-6 if kv == "f16" else 1e-4)


@pytest.mark.parametrize("name", ["tiny_llama_f32.gguf", "tiny_llama.safetensors", "tiny_llama_f16.gguf"])
def test_tiny_llama_matches_transformers(name: str, backend: str, shared_data: Find, tmp_path: Path) -> None:
    check_tiny("tiny_llama", name, backend, shared_data, tmp_path, 1e-2 if "f16" in name else 1e-5)


def test_sliding_window_matches_transformers(backend: str, shared_data: Find, tmp_path: Path) -> None:
    check_tiny("tiny_mistral", "tiny_mistral.safetensors", backend, shared_data, tmp_path, 1e-5)


def test_tiny_mixtral_matches_transformers(backend: str, shared_data: Find, tmp_path: Path) -> None:
    check_tiny("tiny_mixtral", "tiny_mixtral.safetensors", backend, shared_data, tmp_path, 1e-5)


def check_tiny(
    model: str, name: str, backend: str, shared_data: Find, tmp_path: Path, tolerance: float
) -> None:
    folder = shared_data("tiny-architectures")
    path = folder / name
    if name.endswith(".safetensors"):  # a Hugging Face folder is made of the two files
        path = tmp_path / "model"
        path.mkdir()
        (path / "config.json").write_bytes((folder / f"{model}_config.json").read_bytes())
        (path / "model.safetensors").write_bytes((folder / name).read_bytes())
    expected = json.loads((folder / f"{model}_logits.json").read_text())
    executor = open_executor(path, backend, kv="f32")
    for ids, logits in zip(expected["sequences"], expected["logits"], strict=True):
        np.testing.assert_allclose(logits_of(executor, ids, 3), logits, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "phi3", "gemma2"])
def test_other_tiny_models_match_transformers(
    family: str, backend: str, shared_data: Find, tmp_path: Path
) -> None:
    check_tiny(f"tiny_{family}", f"tiny_{family}.safetensors", backend, shared_data, tmp_path, 1e-5)


WIDE = ["F32", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_NL", "IQ4_XS"]
NARROW = ["Q4_1", "Q5_0", "Q5_1", "IQ4_NL"]
QUANTISED = [f"stories260K-wide256/s260k-wide-{name}.gguf" for name in WIDE]
QUANTISED += [f"stories260K/stories260K-{name}.gguf" for name in NARROW]


@pytest.mark.parametrize("file", QUANTISED)
def test_perplexity_of_quantised_files_is_that_of_exact_arithmetic(file: str, shared_data: Find) -> None:
    """Two chunks; the whole text is compared with llama.cpp's figures by the slow test below."""
    pytest.importorskip("torchless._core")
    path = shared_data(file)
    text = shared_data("corpora/ppl-tinystories-150k.txt").read_text()[:6000]
    values = [perplexity_of(path, backend, text, 2) for backend in ("cpu", "reference")]
    # At two bits this model is so unsure that rounding activations moves a short text by a per cent.
    assert values[0] == pytest.approx(values[1], rel=0.02 if "Q2_K" in file else 0.005)


LLAMA_CPP = {
    "F32": 4.6364,
    "BF16": 4.6364,
    "Q8_0": 4.6410,
    "Q6_K": 4.6741,
    "Q5_K_M": 4.7112,
    "Q4_K_M": 4.9241,
    "Q4_0": 5.1383,
    "Q3_K_M": 6.0851,
    "Q2_K": 26.3114,
    "IQ4_NL": 5.0092,
    "IQ4_XS": 4.9951,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LLAMA_CPP))
def test_perplexity_equals_llama_cpp(name: str, shared_data: Find) -> None:
    path = shared_data(f"stories260K-wide256/s260k-wide-{name}.gguf")
    text = shared_data("corpora/ppl-tinystories-150k.txt").read_text()
    assert perplexity_of(path, "cpu", text, None) == pytest.approx(LLAMA_CPP[name], rel=0.005)


KV_TYPES = {"f16": 1e-3, "bf16": 1e-3, "q8_0": 5e-3, "k=q8_0,v=f16": 5e-3, "k=q8_0,v=q4_0": 0.01}


@pytest.mark.parametrize("kv", KV_TYPES)
def test_perplexity_of_every_cache_type_is_near_that_of_float32(kv: str, shared_data: Find) -> None:
    """The bounds are what was measured, with some room. Keys in q4_0 are not among them: they double this model's
    perplexity, whose keys have a few large elements that everything else is rounded by."""
    pytest.importorskip("torchless._core")
    path = shared_data("stories260K/stories260K-f32.gguf")
    text = shared_data("corpora/ppl-tinystories-150k.txt").read_text()[:20000]
    exact = perplexity_of(path, "cpu", text, None, "f32")
    assert perplexity_of(path, "cpu", text, None, kv) == pytest.approx(exact, rel=KV_TYPES[kv])


def perplexity_of(path: Path, backend: str, text: str, chunks: int | None, kv: str = "f16") -> float:
    tokenizer = Tokenizer.from_metadata(open_source(path).metadata)
    executor = open_executor(path, backend, kv=kv)
    return perplexity(
        lambda ids: logits_of(executor, ids, 512),
        tokenizer.encode(text),
        bos_id=tokenizer.bos_id,
        max_chunks=chunks,
    ).value


def test_k_quant_decoding_matches_another_implementation(shared_data: Find) -> None:
    folder = shared_data("tiny-architectures")
    source = open_source(folder / "tiny_kquant.gguf")
    expected = json.loads((folder / "tiny_kquant_ref.json").read_text())["dequant"]
    checked = 0
    for name, info in source.tensors.items():
        if info.type in quants.all_formats() and info.type in expected:
            decoded = quants.by_name(info.type).decode(source.raw(name)).reshape(-1)
            np.testing.assert_allclose(decoded, np.ravel(expected[info.type]), rtol=1e-6)
            checked += 1
    assert checked >= 2

"""A prompt that was computed before gives the same bits, with real kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless.bench import shapes
from torchless.bench.synthetic import write_synthetic

core = pytest.importorskip("torchless._core")

PROMPT = np.random.default_rng(5).integers(3, 500, 150).tolist()


def answers(model: torchless.LLM, **options: object) -> list[torchless.Completion]:
    """A prompt twice, a part of it, the same with another end, and one that goes on with the answer."""
    found = [model.generate(PROMPT, max_tokens=40, logits_hash=True, ignore_eos=True, **options)]
    later = [PROMPT, PROMPT[:97], [*PROMPT[:100], 7, 8, 9], [*PROMPT, *found[0].token_ids, 11]]
    for prompt in later:
        found.append(model.generate(prompt, max_tokens=40, logits_hash=True, ignore_eos=True, **options))
    return found


def require_equal_bits(path: Path, cached: list[int], **load: object) -> None:
    sampling = {"temperature": 1.0, "seed": 4}
    with torchless.load(path, ctx=256, prefix_cache=False, **load) as model:
        expected = answers(model, **sampling)
        assert model.metrics().num_pages_kept == model.info["memory_bytes"]["kv_used"] == 0
    assert not any(completion.usage.num_cached_tokens for completion in expected)
    with torchless.load(path, ctx=256, **load) as model:
        found = answers(model, **sampling)
        assert [completion.usage.num_cached_tokens for completion in found] == cached
        metrics = model.metrics()
        assert metrics.num_cached_tokens == sum(cached)
        assert metrics.num_pages_in_use == 0 and metrics.num_pages_kept > 0
        used = model.info["memory_bytes"]["kv_used"]
        assert used == metrics.num_pages_kept * model.info["memory_bytes"]["kv_page"]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.token_ids, ours.logits_hash) == (theirs.token_ids, theirs.logits_hash)


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0", "BF16", "F32"])
def test_a_hit_gives_the_same_bits(recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", recipe)
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 96, 96, 160], threads=2)


@pytest.mark.parametrize("kv", ["f32", "q8_0", "k=q8_0,v=q4_0"])
def test_a_hit_gives_the_same_bits_with_every_kv_type(kv: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "Q4_K_M", layers=1)
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 96, 96, 160], kv=kv, batch_tokens=20)


def test_a_hit_gives_the_same_bits_with_experts(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test-moe", "Q4_K_M")
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 96, 96, 160])


def test_a_hit_gives_the_same_bits_with_a_sliding_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (2, 256, 4, 4, 64, 512, 512, 2048, 10000.0)
    shape = shapes.ModelShape(*sizes, tied=False, architecture="phi3", window=40)
    monkeypatch.setitem(shapes.SHAPES, "test-window", shape)
    write_synthetic(tmp_path / "m.gguf", "test-window", "Q4_K_M")
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 96, 96, 160])


@pytest.mark.skipif(not core.fast_types(), reason="this machine has no products in fast mode")
def test_in_fast_mode_what_was_generated_is_no_beginning_of_a_prompt(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test", "Q4_K_M", layers=1)
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 96, 96, 128], fast=True)


@pytest.mark.parametrize("recipe", ["Q4_K_M", "F32"])
def test_a_model_with_recurrent_state_goes_on_with_the_same_bits(recipe: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test-hybrid", recipe)
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 64, 96, 160], batch_tokens=64)


def test_a_recurrent_state_survives_its_way_through_the_reference_backend(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "test-hybrid", "F32")
    require_equal_bits(tmp_path / "m.gguf", [0, 128, 64, 96, 160], backend="reference", batch_tokens=64)


def test_several_answers_to_one_prompt_compute_it_once() -> None:
    text = "Once upon a time there was a little girl named Lily. " * 12
    with torchless.load(ctx=1024, prefix_cache=False, speculative="off") as model:
        alone = [model.generate(text, max_tokens=20, seed=seed, logits_hash=True) for seed in range(4)]
    with torchless.load(ctx=1024, speculative="off") as model:
        requests = [torchless.Request(text, max_tokens=20, seed=seed, logits_hash=True) for seed in range(4)]
        together = model.batch(requests)
        num_prompt = alone[0].usage.num_prompt_tokens
        shared = (num_prompt - 1) // 32 * 32
        assert [c.usage.num_cached_tokens for c in together] == [0, shared, shared, shared]
        assert model.metrics().num_computed_tokens <= num_prompt + 3 * 32 + 4 * 20
    assert [c.logits_hash for c in together] == [c.logits_hash for c in alone]


def test_log_probabilities_of_a_prompt_are_those_of_one_that_was_never_seen() -> None:
    text = "Once upon a time there was a little girl named Lily. " * 4
    options = {"max_tokens": 5, "seed": 1, "logprobs": 2}
    with torchless.load(prefix_cache=False) as model:
        expected = model.generate(text, prompt_logprobs=1, **options)
    with torchless.load() as model:
        model.generate(text, **options)
        found = model.generate(text, prompt_logprobs=1, **options)
        again = model.generate(text, **options)
    assert found.usage.num_cached_tokens == 0 and again.usage.num_cached_tokens == 32
    assert found.prompt_logprobs == expected.prompt_logprobs
    assert found.logprobs == again.logprobs == expected.logprobs


def test_drafting_behind_a_prompt_from_the_cache_changes_no_bit() -> None:
    text = "Tom saw a cat. Tom saw a cat. Tom saw a cat. " * 8
    found = []
    for load in ({"prefix_cache": False, "speculative": "off"}, {"draft_model": "built-in"}):
        with torchless.load(ctx=1024, **load) as model:
            runs = [
                model.generate(text, max_tokens=60, seed=1, logits_hash=True, ignore_eos=True)
                for _ in range(2)
            ]
            found += [(run.token_ids, run.logits_hash) for run in runs]
    assert len(set(found)) == 1


def test_n_answers_compute_their_prompt_once() -> None:
    text = "Once upon a time there was a little girl named Lily. " * 12
    with torchless.load(ctx=1024, speculative="off") as model:
        several = model.generate(text, n=4, max_tokens=10, seed=1, ignore_eos=True)
        shared = (several.usage.num_prompt_tokens - 1) // 32 * 32
        assert model.metrics().num_cached_tokens == 3 * shared


def test_prefix_cache_must_be_a_flag() -> None:
    with pytest.raises(torchless.InvalidRequestError, match="prefix_cache must be True or False"):
        torchless.load(prefix_cache="sometimes")

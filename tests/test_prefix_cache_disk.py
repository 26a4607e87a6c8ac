"""What was computed for a prompt survives its process, for others too, and is never believed wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prefix_cache_kills import answers, kill_often, start
from prefix_cache_worker import NUM_PROMPTS

import torchless
from torchless.bench.synthetic import write_synthetic

pytest.importorskip("torchless._core")

PROMPT = np.random.default_rng(5).integers(3, 500, 150).tolist()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_synthetic(tmp_path / "m.gguf", "test", "Q4_K_M", layers=1)
    return tmp_path / "m.gguf"


def answer(path: Path | None, folder: Path | None, **load: object) -> torchless.Completion:
    options = {"ctx": 256, **load}
    with torchless.load(path, prefix_cache_dir=folder, **options) as llm:
        return llm.generate(PROMPT, max_tokens=10, seed=1, logits_hash=True, ignore_eos=True)


@pytest.mark.parametrize("kv", ["f16", "f32", "k=q8_0,v=q4_0"])
def test_after_a_restart_a_prompt_is_there_with_the_same_bits(kv: str, model: Path, tmp_path: Path) -> None:
    expected = answer(model, None, kv=kv, prefix_cache=False)
    first, second = (answer(model, tmp_path / "cache", kv=kv, threads=n) for n in (1, 2))
    assert (first.usage.num_cached_tokens, second.usage.num_cached_tokens) == (0, 128)
    assert first.logits_hash == second.logits_hash == expected.logits_hash


def test_the_reference_backend_keeps_its_pages_too(model: Path, tmp_path: Path) -> None:
    first, second = (answer(model, tmp_path / "cache", backend="reference") for _ in range(2))
    assert second.usage.num_cached_tokens == 128 and second.logits_hash == first.logits_hash


@pytest.mark.parametrize("change", ["weights", "kv", "activations", "time", "context"])
def test_what_would_give_other_bits_is_another_cache(change: str, model: Path, tmp_path: Path) -> None:
    answer(model, tmp_path / "cache")
    load: dict[str, object] = {}
    if change == "weights":
        found = model.stat()
        write_synthetic(model, "test", "Q4_K_M", layers=1, seed=1)
        os.utime(model, ns=(found.st_atime_ns, found.st_mtime_ns))
    elif change == "time":
        os.utime(model, (1, 1))
    elif change == "context":  # changes nothing
        load = {"ctx": 512}
    else:
        load = {change: {"kv": "q8_0", "activations": "f32"}[change]}
    found = answer(model, tmp_path / "cache", **load)
    assert found.usage.num_cached_tokens == (128 if change == "context" else 0)
    assert found.logits_hash == answer(model, None, **load, prefix_cache=False).logits_hash


def test_an_adapter_makes_another_cache(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from lora_models import write_adapter

    write_synthetic(tmp_path / "m.gguf", "test", "Q8_0", layers=1)
    answer(tmp_path / "m.gguf", tmp_path / "cache")
    write_adapter(tmp_path / "adapter", {"model.layers.0.mlp.down_proj": (256, 512)})
    lora = tmp_path / "adapter"
    hits = [
        answer(tmp_path / "m.gguf", tmp_path / "cache", lora=[(lora, scale)]).usage.num_cached_tokens
        for scale in (1.0, 1.0, 0.5)
    ]
    assert hits == [0, 128, 0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_a_damaged_page_is_computed_again(damage: str, model: Path, tmp_path: Path) -> None:
    expected = answer(model, tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.page"), key=lambda path: path.stat().st_mtime_ns)
    for path in files[1:]:
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
        elif damage == "cut":
            content = content[:-1]
        elif damage == "empty":
            content = bytearray()
        else:
            content = bytearray(files[0].read_bytes())
        path.write_bytes(content)
    again = answer(model, tmp_path / "cache")
    assert again.usage.num_cached_tokens == 32 and again.logits_hash == expected.logits_hash
    last = answer(model, tmp_path / "cache")
    assert last.usage.num_cached_tokens == 128 and last.logits_hash == expected.logits_hash


def test_two_processes_use_one_cache_at_once(model: Path, tmp_path: Path) -> None:
    alone = start(model, tmp_path / "none", "1MiB", 0, NUM_PROMPTS, "off")
    expected = dict(answers(alone.communicate(timeout=120)[0]))
    both = [start(model, tmp_path / "cache", "300KiB", seed, 60) for seed in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and not errors
        found = answers(output)
        assert len(found) == 60 and all(expected[number] == digest for number, digest in found)
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.page"))
    assert 0 < size <= 300 << 10


def test_killed_processes_leave_nothing_that_is_wrong(model: Path, tmp_path: Path) -> None:
    """`scripts/kill_prefix_cache` does this 200 times."""
    assert "none wrong" in kill_often(model, tmp_path / "cache", 6)


def test_on_is_a_folder_of_the_user(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_CACHE", str(tmp_path / "own"))
    with torchless.load(model, ctx=256, prefix_cache_dir=True) as llm:
        assert llm.info["prefix_cache_dir"] == str(tmp_path / "own" / "prefix")
        llm.generate(PROMPT, max_tokens=1)
        metrics = llm.metrics()
    assert metrics.num_restored_tokens == 0
    with torchless.load(model, ctx=256, prefix_cache_dir="on") as llm:
        llm.generate(PROMPT, max_tokens=1)
        assert llm.metrics().num_restored_tokens == 128 == llm.metrics().num_cached_tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix_cache_dir": 3}, "prefix_cache_dir must be a folder"),
        ({"prefix_cache_dir": "on", "prefix_cache": False}, "the prefix cache is off"),
        ({"prefix_cache_dir": "on", "prefix_cache_size": "much"}, "not a size"),
        ({"prefix_cache_dir": "on", "prefix_cache_size": 0}, "prefix_cache_size must be a size"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(torchless.InvalidRequestError, match=message):
        torchless.load(**options)


def test_a_model_with_recurrent_state_says_that_it_keeps_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_synthetic(tmp_path / "m.gguf", "test-hybrid", "Q4_K_M")
    with torchless.load(tmp_path / "m.gguf", ctx=256, prefix_cache_dir=tmp_path / "cache") as llm:
        assert llm.info["prefix_cache_dir"] is None
    assert "there is no prefix to keep" in caplog.text


def test_the_command_line_keeps_pages_from_run_to_run(model: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "torchless",
            "run",
            *arguments,
            "--prefix-cache",
            str(tmp_path / "c"),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    text = "Once upon a time there was a little girl named Lily. She had a dog and a red ball. " * 2
    options = (text, "-n", "20", "--seed", "1", "--stats")
    first, second = run(*options), run(*options)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout and len(first.stdout) > 20
    assert "more were cached" in second.stderr and "more were cached" not in first.stderr
    refused = run("Hello", "--no-prefix-cache")
    assert refused.returncode != 0 and "the prefix cache is off" in refused.stderr

"""LoRA adapters on the command line: applied, merged, converted and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_models import write_hf_model
from lora_models import module_shapes, write_adapter
from safetensors.numpy import load_file


def test_adapters_are_applied_merged_converted_and_shown(cli: Any, tmp_path: Path) -> None:
    model, adapter = write_hf_model(tmp_path / "model", "F32"), tmp_path / "adapter"
    weights = load_file(model / "model.safetensors")
    write_adapter(adapter, module_shapes(weights, ("q_proj", "down_proj")), alpha=40.0)

    def text(path: Path, *flags: object) -> str:
        status, out, err = cli("run", path, "the cat", "-n", 12, "--temp", 0, "--ignore-eos", *flags)
        assert status == 0, err
        return str(out)

    beside = text(model, "--lora", f"{adapter}:0.5")
    assert beside != text(model)
    assert beside == text(model, "--lora-scaled", f"{adapter}:0.5")
    assert beside == text(model, "--lora", f"{adapter}:0.25,{adapter}:0.25")
    assert cli("convert", model, tmp_path / "merged.gguf", "--lora", f"{adapter}:0.5")[0] == 0
    assert beside == text(tmp_path / "merged.gguf")
    assert cli("convert", adapter, tmp_path / "adapter.gguf", "--base", model)[0] == 0
    assert beside == text(model, "--lora", f"{tmp_path / 'adapter.gguf'}:0.5")
    for path in (adapter, tmp_path / "adapter.gguf"):
        status, out, _ = cli("show", path)
        assert status == 0 and "LoRA adapter" in out and "attn_q, ffn_down" in out
        assert '"ranks"' in cli("show", path, "--json")[1]
        assert "blk.1.ffn_down.weight" in cli("show", path, "--tensors")[1]


def test_a_wrong_adapter_is_one_sentence(cli: Any, tmp_path: Path) -> None:
    status, out, err = cli("run", "--lora", tmp_path / "nothing", "-p", "hi")
    assert (status, out) == (1, "") and "no such adapter" in err
    status, out, err = cli("run", "--lora-scaled", tmp_path, "0.5", "-p", "hi")
    assert (status, out) == (1, "") and f"write {tmp_path}:SCALE" in err

"""Families with experts against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import logits_of, open_executor
from family_checks import (  # noqa: F401
    family_fixture,
    test_a_file_without_the_original_settings_becomes_the_same_model,
    test_a_folder_made_anew_is_the_same_model,
    test_a_round_trip_gives_every_tensor_and_setting_back,
    test_bits_do_not_depend_on_the_batch,
    test_llama_cpp_agrees,
    test_logits_match_transformers,
)
from transformers_models import (
    SIZES,
    VOCAB,
    check_llama_cpp,
    check_logits,
    check_promise,
    make_model,
    tiny_model,
)

from torchless.conversion.convert import convert
from torchless.errors import UnsupportedError
from torchless.models import record_plan
from torchless.quantization.quantize import quantize
from torchless.weights.open import open_source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

YARN = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
EIGHT = {"num_experts": 8, "num_experts_per_tok": 3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
    "olmoe": ("OlmoeConfig", {**EIGHT, "num_key_value_heads": 4}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {**EIGHT, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80},
    ),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**EIGHT, "moe_intermediate_size": 48, "head_dim": 16, "norm_topk_prob": True},
    ),
    "qwen3-moe, heads of 24": (
        "Qwen3MoeConfig",
        {**EIGHT, "moe_intermediate_size": 48, "head_dim": 24, "norm_topk_prob": True},
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
            "head_dim": 16,
            "sliding_window": 16,
            "rope_parameters": {**YARN, "truncate": False},
        },
    ),
    "gpt-oss, truncated": (
        "GptOssConfig",
        {
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
            "head_dim": 16,
            "sliding_window": 33,
            "rope_parameters": {**YARN, "truncate": True},
        },
    ),
}
GRANITE = {
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.15,
    "logits_scaling": 0.7,
}
FAMILIES |= {
    "granite-moe": ("GraniteMoeConfig", {**GRANITE, "attention_bias": True}),
    "granite-moe, shared": (
        "GraniteMoeSharedConfig",
        {**GRANITE, "shared_intermediate_size": 80, "tie_word_embeddings": True},
    ),
}
PHI = {"num_local_experts": 8, "attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.01}
PHI_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 4.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
    "short_mscale": 1.2,
    "long_mscale": 1.2,
    "original_max_position_embeddings": 64,
}
FAMILIES |= {
    "phi-moe": ("PhimoeConfig", PHI),
    "phi-moe, LongRoPE": (
        "PhimoeConfig",
        {**PHI, "max_position_embeddings": 64, "rope_parameters": PHI_ROPE},
    ),
}
DEEPSEEK = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 48,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 20,
    "n_shared_experts": 2,
}
DEEPSEEK_YARN = {**YARN, "rope_theta": 10000.0, "mscale": 0.707, "mscale_all_dim": 0.707}
FAMILIES |= {
    "deepseek-v2": ("DeepseekV2Config", {**DEEPSEEK, "q_lora_rank": None}),
    "deepseek-v2, groups and YaRN": (
        "DeepseekV2Config",
        {
            **DEEPSEEK,
            "q_lora_rank": 24,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 3.0,
            "rope_parameters": DEEPSEEK_YARN,
        },
    ),
    "deepseek-v3": ("DeepseekV3Config", {**DEEPSEEK, "q_lora_rank": 24, "n_group": 4, "topk_group": 2}),
}
NORMS_OF_THEIR_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "olmoe": ("OlmoeConfig", {**EIGHT, "norm_topk_prob": True}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {
            **EIGHT,
            "moe_intermediate_size": 48,
            "shared_expert_intermediate_size": 80,
            "norm_topk_prob": True,
        },
    ),
    "qwen3-moe": ("Qwen3MoeConfig", {**EIGHT, "moe_intermediate_size": 48}),
}
"""Models whose experts' weights are divided by their sum where the published ones' are not, or the other way."""
ONE_WAY = ("gpt-oss", "deepseek")
NOT_IN_LLAMA_CPP = {
    "phi-moe": "llama.cpp has two rules of its own for Phi-3.5-MoE (compared below)",
    "phi-moe, LongRoPE": "llama.cpp has two rules of its own for Phi-3.5-MoE (compared below)",
    "gpt-oss": "llama.cpp has whole pairs at the ends of YaRN's ramp, whatever the model says",
    "deepseek-v2": "llama.cpp knows models without a query latent by their 27 layers alone",
    "deepseek-v2, groups and YaRN": "llama.cpp rates groups by their best two experts (V3's rule), V2 by the best",
}


model = family_fixture(FAMILIES)


@pytest.mark.parametrize("rope", [None, {**PHI_ROPE, "original_max_position_embeddings": 512}])
def test_two_rules_set_phi_moe_apart_from_llama_cpp(
    rope: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp norms without taking the mean away, and weighs the two best experts by a softmax over all.

    With these two rules the same file gives its logits. Its context is 256 tokens at least, for which it would take
    LongRoPE's other factors if the model was trained on fewer.
    """
    from torchless.backends.reference import ops
    from torchless.models import phimoe

    settings = {**PHI, "max_position_embeddings": 512, **({"rope_parameters": rope} if rope else {})}
    ids, expected = tiny_model(tmp_path / "folder", "PhimoeConfig", settings)
    [path] = convert(tmp_path / "folder", tmp_path / "model.gguf")
    read_routing = phimoe.read_routing

    def by_softmax(reader: Any, **_: Any) -> Any:
        return read_routing(reader, scoring="softmax", normalised=True)

    def without_mean(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight + bias

    changes = {"read_routing": (phimoe, by_softmax), "layer_norm": (ops, without_mean)}
    for name, (module, other) in changes.items():
        monkeypatch.setattr(module, name, other)
        found = logits_of(open_executor(path, "reference"), ids[0], len(ids[0]))
        assert np.square(found - expected[0]).mean() > 0.01 * np.square(expected[0]).mean(), name
    check_llama_cpp(tmp_path / "folder", ids, [found], tmp_path)


@pytest.mark.parametrize("name", NORMS_OF_THEIR_OWN)
def test_weights_that_a_gguf_file_cannot_describe_run_from_the_folder_alone(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    ids, expected = tiny_model(folder, *NORMS_OF_THEIR_OWN[name])
    for backend in ("reference", "cpu"):
        check_logits(folder, ids, expected, "folder", backend, tmp_path)
    check_promise(folder, ids)
    for make in (convert, partial(quantize, recipe="Q8_0")):
        with pytest.raises(UnsupportedError, match=r"norm_topk_prob is \w+, which a GGUF file cannot say"):
            make(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_mxfp4_experts_of_gpt_oss_are_read_exactly(tmp_path: Path) -> None:
    """Blocks and scales as published checkpoints have them, against the library's own decoder."""
    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    class_name, settings = FAMILIES["gpt-oss"]
    config = getattr(transformers, class_name)(**{**SIZES, **settings})
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    make_model(plain, config)
    make_model(packed, config)
    generator = torch.Generator().manual_seed(9)
    tensors = load_file(plain / "model.safetensors")
    stored = dict(tensors)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = tensors[name].shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=generator)
        scales = torch.randint(122, 126, (experts, rows, columns // 32), generator=generator)
        blocks, scales = blocks.to(torch.uint8), scales.to(torch.uint8)
        del stored[name]
        stored[f"{name}_blocks"], stored[f"{name}_scales"] = blocks, scales
        tensors[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    save_file(tensors, plain / "model.safetensors")
    save_file(stored, packed / "model.safetensors")
    ids = list(range(0, VOCAB, 11))
    logits = [logits_of(open_executor(path, "reference"), ids, 64) for path in (plain, packed)]
    np.testing.assert_array_equal(logits[0], logits[1])
    types = {info.type for info in open_source(packed).tensors.values() if info.name.endswith("exps.weight")}
    assert types == {"MXFP4"}
    [path] = convert(packed, tmp_path / "model.gguf")
    found = logits_of(open_executor(path, "reference"), ids, 64)
    np.testing.assert_allclose(found, logits[0], rtol=0, atol=1e-5)  # GGUF holds settings as float32


def test_layers_of_deepseek_that_only_draft_are_left_out(tmp_path: Path) -> None:
    """As V3 is published: behind the layers one more, with an embedding and an output layer of its own."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "folder"
    ids, expected = tiny_model(folder, *FAMILIES["deepseek-v3"])
    config = json.loads((folder / "config.json").read_text())
    last = config["num_hidden_layers"]
    tensors = load_file(folder / "model.safetensors")
    copies = {
        name.replace(f"layers.{last - 1}.", f"layers.{last}."): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith(f"model.layers.{last - 1}.")
    }
    copies |= {
        f"model.layers.{last}.embed_tokens.weight": tensors["model.embed_tokens.weight"].clone(),
        f"model.layers.{last}.shared_head.head.weight": tensors["lm_head.weight"].clone(),
        f"model.layers.{last}.eh_proj.weight": torch.zeros(64, 128),
        f"model.layers.{last}.enorm.weight": torch.zeros(64),
    }
    save_file({**tensors, **copies}, folder / "model.safetensors", {"format": "pt"})
    for count, is_known in ((0, False), (1, True)):
        (folder / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": count}))
        if not is_known:
            with pytest.raises(UnsupportedError, match=rf"such as 'hf\.model\.layers\.{last}\."):
                record_plan(open_source(folder))
    for form in ("folder", "gguf"):
        check_logits(folder, ids, expected, form, "reference", tmp_path)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from torchless.errors import FormatError

    class_name, settings = FAMILIES["mixtral"]
    make_model(tmp_path, getattr(transformers, class_name)(**{**SIZES, **settings}))
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match=r"blk\.1\.ffn_up_exps\.weight: expert 2 is missing"):
        record_plan(open_source(tmp_path))


def test_stacks_of_two_types_are_joined_as_floats(tmp_path: Path) -> None:
    """A folder has gate and up of Granite-MoE in one tensor; a GGUF file may hold them in two types."""
    from safetensors.numpy import load_file

    from torchless.weights.gguf_writer import write_gguf

    tiny_model(tmp_path / "folder", *FAMILIES["granite-moe, shared"])
    whole, quantised = (
        open_source(convert(tmp_path / "folder", tmp_path / f"{kind}.gguf", type=kind)[0])
        for kind in ("F32", "Q8_0")
    )
    chosen = [
        (quantised if info.name.endswith(("up_exps.weight", "up_shexp.weight")) else whole, info.name)
        for info in whole.tensors.values()
    ]
    tensors = (
        (name, source.tensors[name].shape, source.tensors[name].type, iter([source.raw(name)]))
        for source, name in chosen
    )
    write_gguf(tmp_path / "mixed.gguf", dict(whole.metadata), tensors)
    convert(tmp_path / "mixed.gguf", tmp_path / "back")
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("folder", "back"))
    for part in ("block_sparse_moe.input_linear", "shared_mlp.input_linear"):
        name = f"model.layers.1.{part}.weight"
        inner = expected[name].shape[-2] // 2
        np.testing.assert_array_equal(found[name][..., :inner, :], expected[name][..., :inner, :])
        assert 0 < np.abs(found[name] - expected[name]).max() < 0.01

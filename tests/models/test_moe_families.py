"""Families with experts against Hugging Face transformers: tiny random models, from the folder and as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import logits_of, open_executor

from torchless.conversion.convert import convert
from torchless.errors import UnsupportedError
from torchless.models import record_plan
from torchless.weights.open import open_source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 400, 48
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
}
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
    "olmoe, normalised": ("OlmoeConfig", {**EIGHT, "norm_topk_prob": True}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {**EIGHT, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80},
    ),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**EIGHT, "moe_intermediate_size": 48, "head_dim": 16, "norm_topk_prob": True},
    ),
    "qwen3-moe, heads of 24": ("Qwen3MoeConfig", {**EIGHT, "moe_intermediate_size": 48, "head_dim": 24}),
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
ONE_WAY = ("gpt-oss", "deepseek")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name, folder, ids, logits) of a family's tiny model."""
    class_name, settings = FAMILIES[request.param]
    if not hasattr(transformers, class_name):
        pytest.skip(f"transformers {transformers.__version__} has no {class_name}")
    folder = tmp_path_factory.mktemp("model")
    ids, logits = make_model(folder, getattr(transformers, class_name)(**{**SIZES, **settings}))
    return request.param, folder, ids, logits


def make_model(folder: Path, config: Any) -> tuple[Any, Any]:
    """Saves a random model whose experts and logits differ from token to token; returns ids and logits."""
    from hf_models import write_tokenizer

    generator = torch.Generator().manual_seed(3)
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    network = network.float().eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.dim() > 1:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
        for tensor in network.parameters():
            if tensor.dim() == 1:  # norms, biases, sinks
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        for name, tensor in network.named_parameters():
            if name.endswith(
                "A_log"
            ):  # delta-nets that remember some tokens, whatever the library starts with
                tensor.copy_((0.02 + 0.6 * torch.rand(tensor.shape, generator=generator)).log())
        for name, tensor in network.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        ids = torch.randint(0, VOCAB, (3, LENGTH), generator=generator)
        logits = network(ids).logits.numpy()
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return ids.tolist(), logits


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits_match_transformers(model: Any, form: str, backend: str, tmp_path: Path) -> None:
    if backend == "cpu":
        pytest.importorskip("torchless._core")
    _, folder, ids, expected = model
    path = folder
    if form == "gguf":
        [path] = convert(folder, tmp_path / "model.gguf")
    executor = open_executor(path, backend, kv="f32", threads=2)
    assert np.abs(expected).max() > 1
    for chunk in (LENGTH, 7, 1) if backend == "cpu" else (LENGTH,):
        for sequence, logits in zip(ids, expected, strict=True):
            np.testing.assert_allclose(logits_of(executor, sequence, chunk), logits, rtol=0, atol=1e-4)


def test_a_round_trip_gives_every_tensor_and_setting_back(model: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    name, folder, _, _ = model
    convert(folder, tmp_path / "model.gguf")
    if name.startswith(ONE_WAY):
        with pytest.raises(UnsupportedError, match="as GGUF files only"):
            convert(tmp_path / "model.gguf", tmp_path / "back")
        return
    convert(tmp_path / "model.gguf", tmp_path / "back")
    stored, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert stored.keys() == back.keys()
    for key, values in stored.items():
        np.testing.assert_array_equal(back[key], values)
    again = transformers.AutoConfig.from_pretrained(tmp_path / "back").to_dict()
    wanted = transformers.AutoConfig.from_pretrained(folder).to_dict()
    assert {**again, "_name_or_path": ""} == {**wanted, "_name_or_path": ""}


def test_llama_cpp_agrees(model: Any, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    name, folder, ids, expected = model
    if name == "gpt-oss":
        pytest.skip("llama.cpp has whole pairs at the ends of YaRN's ramp, whatever the model says")
    [path] = convert(folder, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(
        str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
    )
    theirs.eval(ids[0])
    found = np.array(theirs.scores[:LENGTH])
    assert np.square(found - expected[0]).mean() < 1e-6 * np.square(expected[0]).mean()


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

"""LoRA adapters beside a model and merged into it: against the formula in transformers, peft and llama.cpp."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from executors import logits_of, open_executor
from hf_models import write_hf_model
from lora_models import ATTENTION, MLP, Matrices, module_shapes, scale_of, write_adapter
from safetensors.numpy import load_file

import torchless
from torchless.adapters.applied import AdaptedSource, adapted_plan
from torchless.adapters.binding import bind_adapters
from torchless.adapters.open import scaled_paths
from torchless.bench.synthetic import write_synthetic
from torchless.conversion.convert import convert
from torchless.models import record_plan
from torchless.plan import Linear, Plan
from torchless.weights.open import open_source

SCALES = (0.5, -0.75)
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head")
DELTA = {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 80,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "llama": ("LlamaConfig", {}, (*ATTENTION, *MLP, "lm_head"), ("q_proj", "k_proj", "down_proj")),
    "qwen2, tied": (
        "Qwen2Config",
        {"tie_word_embeddings": True},
        (*ATTENTION, *MLP),
        ("q_proj", "v_proj", "down_proj"),
    ),
    "phi3": ("Phi3Config", {"pad_token_id": 0}, FUSED, ("qkv_proj", "down_proj")),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 16, "query_pre_attn_scalar": 16},
        (*ATTENTION, *MLP),
        ("k_proj", "down_proj"),
    ),
    "qwen3.5": (
        "Qwen3_5TextConfig",
        {**DELTA, "rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
        (*ATTENTION, *MLP, "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"),
        ("in_proj_qkv", "out_proj", "down_proj"),
    ),
    "qwen3-next": (
        "Qwen3NextConfig",
        {**DELTA, **EXPERTS},
        (*ATTENTION, *MLP, "shared_expert_gate", "in_proj_qkvz", "in_proj_ba", "out_proj"),
        ("in_proj_qkvz", "o_proj", "down_proj"),
    ),
}
"""Configuration of a tiny model, and what each of two adapters for it changes."""


class Case(NamedTuple):
    """A model, two adapters for it, and the logits of both together at `SCALES`."""

    name: str
    folder: Path
    gguf: Path
    adapters: tuple[Path, Path]
    gguf_adapters: tuple[Path, Path]
    ranks: list[list[int]]
    ids: list[list[int]]
    plain: np.ndarray
    adapted: np.ndarray


def adapted_logits(
    folder: Path, ids: list[int], parts: list[tuple[Matrices, dict[str, float]]]
) -> np.ndarray:
    """Logits of transformers in float32 where each adapted module's output has ``scale * B (A x)`` added to it."""
    import torch
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    for matrices, scales in parts:
        for module, (a, b) in matrices.items():

            def hook(
                _: Any, inputs: Any, out: Any, a: Any = a, b: Any = b, scale: float = scales[module]
            ) -> Any:
                inner = torch.nn.functional.linear(inputs[0], torch.from_numpy(a))
                return out + scale * torch.nn.functional.linear(inner, torch.from_numpy(b))

            network.get_submodule(module).register_forward_hook(hook)
    with torch.no_grad():
        return np.asarray(network(torch.tensor([ids])).logits[0].numpy())


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    models = pytest.importorskip("transformers_models")
    class_name, settings, *targets = CASES[request.param]
    root = tmp_path_factory.mktemp("model")
    folder = root / "model"
    ids, logits = models.tiny_model(folder, class_name, settings)
    weights = load_file(folder / "model.safetensors")
    shapes = [module_shapes(weights, wanted) for wanted in targets]
    one = write_adapter(root / "first", shapes[0], rank=4, alpha=6.0)
    two = write_adapter(
        root / "second",
        shapes[1],
        rank=3,
        alpha=5.0,
        seed=2,
        use_rslora=True,
        rank_pattern={"layers.1.mlp.down_proj": 7},
        alpha_pattern={"k_proj": 2.5},
    )
    scales = {
        module: SCALES[1] * scale_of(len(a), 2.5 if module.endswith("k_proj") else 5.0, rslora=True)
        for module, (a, _) in two.items()
    }
    parts = [(one, dict.fromkeys(one, SCALES[0] * scale_of(4, 6.0))), (two, scales)]
    [gguf] = convert(folder, root / "model.gguf")
    first, second = (root / name for name in ("first", "second"))
    converted = [convert(path, root / f"{path.name}.gguf", base=folder)[0] for path in (first, second)]
    return Case(
        request.param,
        folder,
        gguf,
        (first, second),
        (converted[0], converted[1]),
        [sorted({len(a) for a, _ in matrices.values()}) for matrices in (one, two)],
        ids,
        logits[0],
        adapted_logits(folder, ids[0], parts),
    )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("adapter_form", ["peft", "gguf adapter"])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits_match_the_formula_in_transformers(
    case: Case, form: str, adapter_form: str, backend: str
) -> None:
    path = case.folder if form == "folder" else case.gguf
    adapters = case.adapters if adapter_form == "peft" else case.gguf_adapters
    lora = list(zip(adapters, SCALES, strict=True))
    assert np.abs(case.adapted - case.plain).max() > 0.5
    with torchless.load(path, lora=lora, kv="f32", backend=backend, threads=2) as model:
        np.testing.assert_allclose(model.logits(case.ids[0]), case.adapted, rtol=0, atol=1e-4)
        found = model.info["adapters"]
    assert [adapter["scale"] for adapter in found] == list(SCALES)
    assert [adapter["ranks"] for adapter in found] == case.ranks
    with torchless.load(path, kv="f32", backend=backend) as model:
        np.testing.assert_allclose(model.logits(case.ids[0]), case.plain, rtol=0, atol=1e-4)
        assert model.info["adapters"] == []


@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_merged_files_give_the_same(case: Case, form: str, tmp_path: Path) -> None:
    src = case.folder if form == "folder" else case.gguf
    lora = list(zip(case.adapters, SCALES, strict=True))
    is_one_way = case.name.startswith("qwen3")
    for dst in (tmp_path / "merged.gguf", *(() if is_one_way else (tmp_path / "merged",))):
        convert(src, dst, lora=lora)
        with torchless.load(dst, kv="f32") as model:
            np.testing.assert_allclose(model.logits(case.ids[0]), case.adapted, rtol=0, atol=1e-4)
            assert set(model.info["tensor_types"]) == {"F32"}


def test_llama_cpp_applies_the_converted_adapter(case: Case) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = llama_cpp.Llama(
        str(case.gguf),
        lora_path=str(case.gguf_adapters[0]),
        lora_scale=SCALES[0],
        n_ctx=64,
        logits_all=True,
        verbose=False,
        n_threads=1,
        type_k=0,
        type_v=0,
    )
    theirs.eval(case.ids[0])
    found = np.array(theirs.scores[: len(case.ids[0])])
    with torchless.load(case.gguf, lora=(case.gguf_adapters[0], SCALES[0]), kv="f32") as model:
        ours = model.logits(case.ids[0])
    assert np.square(found - ours).mean() < 1e-6 * np.square(ours).mean()
    assert np.square(found - case.plain).mean() > 1e-2 * np.square(ours).mean()


def test_bits_do_not_depend_on_the_batch(case: Case) -> None:
    models = pytest.importorskip("transformers_models")
    models.check_promise(case.folder, case.ids, list(zip(case.adapters, SCALES, strict=True)))


def test_what_adapters_take_is_announced(case: Case) -> None:
    cpu = pytest.importorskip("torchless.backends.cpu")
    plain = open_executor(case.folder, "cpu", kv="f32")
    adapted = open_executor(case.folder, "cpu", kv="f32", lora=case.adapters)
    announced, used = cpu.required_bytes(*bound_model(case), adapted.options), adapted.memory_bytes()
    assert announced["weights"] <= used["weights"] <= announced["weights"] + 100_000  # vectors come on top
    assert used["scratch"] <= announced["scratch"] + 8192
    assert used["weights"] > plain.memory_bytes()["weights"]


def test_weights_that_stay_in_their_file_are_adapted_with_the_same_bits(case: Case) -> None:
    pytest.importorskip("torchless._core")
    lora = list(zip(case.gguf_adapters, SCALES, strict=True))
    found = []
    for lazy in (False, True):
        with torchless.load(case.gguf, lora=lora, lazy=lazy, ctx=64) as model:
            found.append(model.logits(case.ids[0]))
    np.testing.assert_array_equal(*found)


def bound_model(case: Case) -> tuple[Plan, AdaptedSource]:
    source = open_source(case.folder)
    plan, _ = record_plan(source)
    bound = bind_adapters(plan, source, scaled_paths(case.adapters))
    return adapted_plan(plan, bound), AdaptedSource(source, bound)


def test_products_of_the_same_input_share_a_matrix(case: Case) -> None:
    plan, source = bound_model(case)
    ops = [op for op in plan.ops if isinstance(op, Linear)]
    inner = [op.weight for op in ops if op.weight.endswith("lora_a")]
    assert sorted(inner) == sorted(name for name in source.tensors if name.endswith("lora_a"))
    if case.name == "phi3":
        rows = [op.rows for op in ops if op.weight == "blk.0.attn_qkv.weight.lora_b"]
        assert rows == [(0, 64), (64, 96), (96, 128)]


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "rank_pattern": {"down_proj": 5}}])
@pytest.mark.parametrize("class_name", ["LlamaConfig", "Qwen2Config", "Phi3Config"])
def test_adapters_that_peft_saves_give_its_logits(
    class_name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    models = pytest.importorskip("transformers_models")
    peft = pytest.importorskip("peft")
    torch, transformers = models.torch, models.transformers
    folder = tmp_path / "model"
    ids, plain = models.tiny_model(folder, class_name, {"pad_token_id": 0})
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", **settings
    )
    adapted = peft.get_peft_model(network.float(), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_B" in name:  # zeros until trained
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        expected = adapted(torch.tensor(ids)).logits.numpy()
    adapted.save_pretrained(tmp_path / "adapter")
    assert np.abs(expected - plain).max() > 0.5
    with torchless.load(folder, lora=tmp_path / "adapter", kv="f32") as model:
        for sequence, logits in zip(ids, expected, strict=True):
            np.testing.assert_allclose(model.logits(sequence), logits, rtol=0, atol=1e-4)


def test_a_merged_quantised_tensor_keeps_its_type_or_takes_the_wanted_one(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "model", "F32", hidden_size=64, intermediate_size=128)
    weights = load_file(folder / "model.safetensors")
    write_adapter(tmp_path / "adapter", module_shapes(weights, ("q_proj", "down_proj")))
    [quantised] = convert(folder, tmp_path / "q8.gguf", type="Q8_0")
    [own] = convert(quantised, tmp_path / "own.gguf", lora=tmp_path / "adapter")
    [wanted] = convert(folder, tmp_path / "wanted.gguf", type="Q4_0", lora=tmp_path / "adapter")
    first, second, third = (open_source(path) for path in (quantised, own, wanted))
    assert {n: i.type for n, i in first.tensors.items()} == {n: i.type for n, i in second.tensors.items()}
    changed = {n for n in first.tensors if not np.array_equal(first.raw(n), second.raw(n))}
    assert changed == {f"blk.{i}.{part}.weight" for i in (0, 1) for part in ("attn_q", "ffn_down")}
    assert third.tensors["blk.0.attn_q.weight"].type == "Q4_0"
    ids = list(range(40))
    with torchless.load(quantised, lora=tmp_path / "adapter") as model, torchless.load(own) as merged_model:
        ours, theirs = model.logits(ids), merged_model.logits(ids)
    assert np.square(ours - theirs).mean() < 5e-3 * np.square(ours).mean()


@pytest.mark.parametrize(
    ("recipe", "level", "fuses"),
    [("Q4_K_M", "avx512", "10"), ("Q4_K_M", "avx2", "1"), ("Q4_K_M", "scalar", "1"), ("F32", "avx512", "10")],
)
def test_adapters_keep_the_promise_and_fusion_changes_no_bit(
    recipe: str, level: str, fuses: str, tmp_path: Path
) -> None:
    core = pytest.importorskip("torchless._core")
    if level not in core.isa_levels():
        pytest.skip(f"this machine has no {level}")
    model = tmp_path / "random.gguf"
    write_synthetic(model, "test", recipe, layers=1)
    shapes = {
        f"model.layers.0.{HF_NAMES[info.name.split('.')[2]]}": info.shape
        for info in open_source(model).tensors.values()
        if info.name.startswith("blk.") and info.name.split(".")[2] in HF_NAMES
    }
    write_adapter(tmp_path / "adapter", shapes, rank=16, alpha=16)
    worker = Path(__file__).parents[1] / "promise_worker.py"
    hashes = set()
    for fuse in fuses:
        result = subprocess.run(
            [sys.executable, str(worker), str(model), "f16", "50", "int8", str(tmp_path / "adapter")],
            env={**os.environ, "TORCHLESS_ISA": level, "TORCHLESS_FUSE": fuse},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        hashes.add(result.stdout)
    assert len(hashes) == 1


HF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def test_both_backends_agree_on_a_quantised_model(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "model", "F32")
    weights = load_file(folder / "model.safetensors")
    write_adapter(tmp_path / "adapter", module_shapes(weights, (*ATTENTION, *MLP)))
    [path] = convert(folder, tmp_path / "q8.gguf", type="Q8_0")
    ids = list(range(3, 40))
    found = [
        logits_of(open_executor(path, backend, kv="f32", lora=tmp_path / "adapter"), ids, 37)
        for backend in ("reference", "cpu")
    ]
    assert np.square(found[0] - found[1]).mean() < 5e-4 * np.square(found[0]).mean()

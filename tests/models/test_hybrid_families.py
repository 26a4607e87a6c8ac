"""Hybrids of gated delta-nets and attention against Hugging Face transformers: tiny random models, folder and GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import logits_of, open_executor

from torchless.backends import cpu
from torchless.backends.base import ExecutorOptions
from torchless.conversion.convert import convert
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.errors import FormatError, UnsupportedError
from torchless.models import record_plan
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams
from torchless.weights.open import open_source

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from family_checks import (  # noqa: E402, F401  (needs torch)
    family_fixture,
    test_a_round_trip_gives_every_tensor_and_setting_back,
    test_bits_do_not_depend_on_the_batch,
    test_llama_cpp_agrees,
    test_logits_match_transformers,
)
from test_moe_families import EIGHT  # noqa: E402
from transformers_models import LENGTH, SIZES, make_model, tiny_model  # noqa: E402

DELTA = {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {**EIGHT, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80}
ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}
WIDE = {"linear_value_head_dim": 24, "num_hidden_layers": 3, "full_attention_interval": 3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-next": ("Qwen3NextConfig", {**DELTA, **EXPERTS}),
    "qwen3-next, wide values": ("Qwen3NextConfig", {**DELTA, **EXPERTS, **WIDE}),
    "qwen3.5": ("Qwen3_5TextConfig", {**DELTA, "rope_parameters": ROPE}),
    "qwen3.5, tied, wide values": (
        "Qwen3_5TextConfig",
        {**DELTA, **WIDE, "rope_parameters": ROPE, "tie_word_embeddings": True},
    ),
    "qwen3.5-moe": ("Qwen3_5MoeTextConfig", {**DELTA, **EXPERTS, "rope_parameters": ROPE}),
}


NOT_IN_LLAMA_CPP = {
    name: "llama.cpp needs keys and values of one width" for name in FAMILIES if "wide values" in name
}
ONE_WAY = ("qwen",)
REFERENCE_TOLERANCE = 5e-5
"""Decays (-exp of a logarithm) and norms (plus one) are rounded to float32 as they are read, and 48 tokens add that up;
with weights that are rounded so on both sides the logits agree within 3e-7."""

model = family_fixture(FAMILIES)


def test_waiting_preempted_and_interrupted_sequences_give_the_bits_of_their_own_run(
    model: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torchless._core")
    source = open_source(convert(model[1], tmp_path / "model.gguf")[0])
    plan, _ = record_plan(source)

    def sequence(i: int) -> Sequence:
        prompt = np.array(model[2][i % 3][: 11 + 9 * i], np.int32)
        sampler = Sampler(SamplingParams(seed=i))
        return Sequence(prompt, max_tokens=len(prompt) + 30, sampler=sampler, hash_logits=True)

    def run(engine: Engine, sequences: list[Sequence], *, interrupted: bool = False) -> list[str]:
        for item in sequences:
            engine.add(item)
        step, num_steps = engine.executor.step, 0

        def breaks_off(batch: Any) -> Any:
            nonlocal num_steps
            num_steps += 1
            logits = step(batch)
            if num_steps in (3, 20):
                raise KeyboardInterrupt
            return logits

        if interrupted:
            engine.executor.step = breaks_off  # type: ignore[method-assign]
        while not all(item.finish_reason for item in sequences):
            try:
                engine.step()
            except KeyboardInterrupt:
                engine.recover()
        assert not interrupted or num_steps > 20
        return [item.digest.hexdigest() for item in sequences if item.digest is not None]

    options = ExecutorOptions(
        4, 16, 4, 2, num_state_slots=3
    )  # four sequences of up to three pages want to run
    alone = [run(Engine(cpu.compile(plan, source, options)), [sequence(i)])[0] for i in range(4)]
    executor = cpu.compile(plan, source, options)
    sequences = [sequence(i) for i in range(4)]
    assert run(Engine(executor), sequences) == alone
    assert sum(item.num_preemptions for item in sequences) > 0
    assert run(Engine(executor), [sequence(i) for i in range(4)], interrupted=True) == alone


def test_quantised_files_are_computed_with_the_weights_that_they_hold(model: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchless._core")
    _, folder, ids, expected = model
    [path] = convert(folder, tmp_path / "model.gguf", type="Q8_0")
    types = {
        info.name.split(".")[2]: info.type
        for info in open_source(path).tensors.values()
        if "blk" in info.name
    }
    assert types["attn_qkv"] == "Q8_0" and types["ssm_conv1d"] == types["ssm_a"] == "F32"
    power = np.square(expected[0]).mean()
    exact = logits_of(open_executor(path, "reference"), ids[0], LENGTH)  # float64, of the decoded weights
    wide = logits_of(open_executor(path, kv="f32", activations="f32"), ids[0], LENGTH)
    assert np.square(wide - exact).mean() < 1e-8 * power
    # Tokens of few neighbours have outputs near zero, whose norm makes much of rounding activations to 8 bits.
    found = logits_of(open_executor(path), ids[0], LENGTH)
    assert np.square(found - exact).mean() < 0.05 * power


def test_the_reference_backend_goes_on_from_a_state(model: Any) -> None:
    _, folder, ids, expected = model
    found = logits_of(open_executor(folder, "reference"), ids[1], 5)
    np.testing.assert_allclose(found, expected[1], rtol=0, atol=1e-4)


def test_early_gguf_files_with_one_projection_run(tmp_path: Path) -> None:
    """Before attn_qkv and attn_gate, files had ssm_in as Hugging Face folders have in_proj_qkvz."""
    from torchless.weights.gguf_writer import write_gguf
    from torchless.weights.safetensors import SafetensorsSource

    ids, expected = tiny_model(tmp_path / "folder", *FAMILIES["qwen3-next, wide values"])
    [path] = convert(tmp_path / "folder", tmp_path / "new.gguf")
    new, stored = open_source(path), SafetensorsSource(tmp_path / "folder")
    tensors = []
    for info in new.tensors.values():
        if info.name.endswith("attn_gate.weight"):
            continue
        raw, name, shape = new.raw(info.name), info.name, info.shape
        if name.endswith("attn_qkv.weight"):
            whole = stored._file_tensors()[
                f"model.layers.{name.split('.')[1]}.linear_attn.in_proj_qkvz.weight"
            ]
            raw, name, shape = whole.view(), name.replace("attn_qkv", "ssm_in"), whole.stored.shape
        tensors.append((name, shape, info.type, iter([raw])))
    write_gguf(tmp_path / "early.gguf", dict(new.metadata), iter(tensors))
    found = logits_of(open_executor(tmp_path / "early.gguf", "reference"), ids[0], LENGTH)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)


def test_settings_that_would_change_the_result_are_refused(tmp_path: Path) -> None:
    import json

    tiny_model(tmp_path, *FAMILIES["qwen3.5"])
    config = json.loads((tmp_path / "config.json").read_text())
    kinds = ["full_attention", *config["layer_types"][1:]]
    for changes, error, message in (
        ({"layer_types": kinds}, UnsupportedError, "layer_types"),
        ({"linear_num_key_heads": 3}, FormatError, "3 key heads of 16 and 4 value heads"),
        ({"linear_value_head_dim": 8}, FormatError, "expected a matrix of 96 rows|conv1d"),
        ({"attn_output_gate": False}, UnsupportedError, "attn_output_gate is False"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(error, match=message):
            record_plan(open_source(tmp_path))


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.5-moe"])
def test_the_language_model_of_a_checkpoint_with_images_runs(name: str, tmp_path: Path) -> None:
    """As they are published: settings and tensors nested, experts fused, layers that draft, an image encoder."""
    import json

    import torch
    from safetensors.torch import load_file, save_file

    class_name, settings = FAMILIES[name]
    whole = class_name.replace("TextConfig", "Config")
    if not hasattr(transformers, whole):
        pytest.skip(f"transformers {transformers.__version__} has no {whole}")
    ids, expected = make_model(tmp_path, getattr(transformers, class_name)(**{**SIZES, **settings}))
    inner = json.loads((tmp_path / "config.json").read_text())
    architecture = whole.replace("Config", "ForConditionalGeneration")
    config = getattr(transformers, whole)(text_config=dict(inner), tie_word_embeddings=False)
    with torch.device("meta"):
        wanted = getattr(transformers, architecture)(config).state_dict()
    tensors = {}
    for key, tensor in load_file(tmp_path / "model.safetensors").items():
        if ".experts." not in key:
            tensors[key.replace("model.", "model.language_model.", 1)] = tensor
    for layer in range(inner["num_hidden_layers"] if name == "qwen3.5-moe" else 0):
        stored, prefix = load_file(tmp_path / "model.safetensors"), f"model.layers.{layer}.mlp.experts."
        ours = f"model.language_model.layers.{layer}.mlp.experts."
        gate, up, down = (
            torch.stack([stored[f"{prefix}{e}.{part}_proj.weight"] for e in range(inner["num_experts"])])
            for part in ("gate", "up", "down")
        )
        tensors[f"{ours}gate_up_proj"], tensors[f"{ours}down_proj"] = torch.cat([gate, up], 1), down
    for key, tensor in tensors.items():
        assert wanted[key].shape == tensor.shape
    assert {key for key in wanted if not key.startswith("model.visual.")} == set(tensors)
    tensors |= {"model.visual.patch_embed.proj.bias": torch.zeros(3), "mtp.fc.weight": torch.zeros(3, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    inner |= {"mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False, "mamba_ssm_dtype": "float32"}
    outer = {"architectures": [architecture], "model_type": whole, "image_token_id": 1, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps({**outer, "text_config": inner}))
    found = logits_of(open_executor(tmp_path, "reference"), ids[0], LENGTH)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)


def test_layers_of_gguf_files_that_only_draft_are_left_out(model: Any, tmp_path: Path) -> None:
    from torchless.weights.gguf_writer import write_gguf

    _, folder, ids, _ = model
    [file] = convert(folder, tmp_path / "whole.gguf")
    source = open_source(file)
    architecture = source.metadata["general.architecture"]
    count = source.metadata[f"{architecture}.block_count"]
    metadata = {**source.metadata, f"{architecture}.block_count": np.uint32(count + 1)}
    tensors = [(i.name, i.shape, i.type, iter([source.raw(i.name)])) for i in source.tensors.values()]
    draft = np.zeros(4 * 64, np.uint8)
    tensors.append((f"blk.{count}.nextn.eh_proj.weight", (1, 64), "F32", iter([draft])))
    path = tmp_path / "model.gguf"
    write_gguf(path, {**metadata, f"{architecture}.nextn_predict_layers": np.uint32(1)}, iter(tensors))
    found, expected = (logits_of(open_executor(p, "reference"), ids[0], LENGTH) for p in (path, file))
    np.testing.assert_array_equal(found, expected)
    write_gguf(path, metadata, iter([(n, s, t, iter([source.raw(n)])) for n, s, t, _ in tensors[:-1]]))
    with pytest.raises(UnsupportedError, match=f"no tensor 'blk.{count}.attn_norm.weight'"):
        record_plan(open_source(path))

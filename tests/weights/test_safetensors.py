"""Hugging Face folders: tensors and their names, configuration under GGUF's keys, and files that lie."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchless.errors import FormatError, ModelNotFoundError, UnsupportedError
from torchless.weights.gguf import GgufSource
from torchless.weights.names import canonical_name
from torchless.weights.safetensors import SafetensorsSource

SharedData = Callable[[str], Path]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 32,
    "hidden_act": "silu",
    "eos_token_id": 2,
}


def pack(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def simple(**tensors: tuple[str, list[int], int]) -> bytes:
    """A valid file of zeros: name -> (dtype, shape, bytes); "__" in a name stands for a dot."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        offsets = [end, end + size]
        header[name.replace("__", ".")] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        end += size
    return pack(header, bytes(end))


def folder_with(path: Path, weights: bytes | None = None, **changes: Any) -> Path:
    """A model folder; `changes` replaces configuration keys (None deletes)."""
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    path.joinpath("config.json").write_text(json.dumps(config))
    data = simple(model__norm__weight=("F32", [4], 16)) if weights is None else weights
    path.joinpath("model.safetensors").write_bytes(data)
    return path


# -- tensors -----------------------------------------------------------------------------------------


def test_a_real_folder_gives_the_tensors_of_its_gguf(shared_data: SharedData) -> None:
    ours = SafetensorsSource(shared_data("stories260K/hf"))
    gguf = GgufSource(shared_data("stories260K/stories260K-f32.gguf"))
    assert ours.tensors == gguf.tensors and ours.rope_layout != gguf.rope_layout
    for name in ours.tensors:
        if "attn_q" in name or "attn_k" in name:  # GGUF stores the rows of a head in another order.
            ours_sorted, gguf_sorted = np.sort(ours.raw(name)), np.sort(gguf.raw(name))
            np.testing.assert_array_equal(ours_sorted, gguf_sorted)
        else:
            np.testing.assert_array_equal(ours.raw(name), gguf.raw(name))
    for key, value in gguf.metadata.items():
        if key.startswith("llama.") or key == "tokenizer.ggml.bos_token_id":
            assert ours.metadata[key] == pytest.approx(value, rel=1e-6), key


def test_files_of_the_reference_library_are_read(tmp_path: Path) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    stored = {
        "model.norm.weight": x[0],
        "lm_head.weight": x.astype(np.float16),
        "model.embed_tokens.weight": x.astype(ml_dtypes.bfloat16),
    }
    numpy_format.save_file(stored, folder_with(tmp_path) / "model.safetensors", {"format": "pt"})
    source = SafetensorsSource(tmp_path)
    for name, array in stored.items():
        canonical = canonical_name(name)
        assert canonical is not None
        assert source.tensors[canonical].shape == array.shape
        assert bytes(source.raw(canonical)) == array.tobytes()
    assert [info.type for info in source.tensors.values()].count("BF16") == 1


@pytest.mark.parametrize("name", ["llama.safetensors.index.json", "llama-00002-of-00002.safetensors"])
def test_shards_are_joined(shared_data: SharedData, name: str) -> None:
    folder = shared_data("tiny-architectures")
    config = folder / "tiny_llama_config.json"
    whole = SafetensorsSource(folder / "tiny_llama.safetensors", config)
    shards = SafetensorsSource(folder / f"tiny_{name}", config)
    assert len(whole.tensors) == 21 and dict(whole.tensors) == dict(shards.tensors)
    for item in whole.tensors:
        np.testing.assert_array_equal(whole.raw(item), shards.raw(item))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder_with(tmp_path).joinpath("model.safetensors").rename(tmp_path / "m-00001-of-00002.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"m-00002-of-00002\.safetensors"):
        SafetensorsSource(tmp_path)


def test_an_index_that_lies_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path).joinpath("model.safetensors").rename(tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for places, message in (
        ({"model.norm.weight": "../a.safetensors"}, "not a file of this folder"),
        ({"model.norm.weight": 3}, "not a file of this folder"),
        ({"lm_head.weight": "a.safetensors"}, "'lm_head.weight' is missing"),
        ({}, "weight_map"),
        ("x", "weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(FormatError, match=message):
            SafetensorsSource(tmp_path)


def test_tied_embeddings_appear_once_and_buffers_not_at_all(tmp_path: Path) -> None:
    weights = simple(
        model__embed_tokens__weight=("F16", [2, 2], 8),
        lm_head__weight=("F16", [2, 2], 8),
        model__layers__0__self_attn__rotary_emb__inv_freq=("F64", [1], 8),
        model__strange=("F32", [1], 4),
    )
    untied = SafetensorsSource(folder_with(tmp_path, weights))
    assert set(untied.tensors) == {"token_embd.weight", "output.weight", "hf.model.strange"}
    tied = SafetensorsSource(folder_with(tmp_path, weights, tie_word_embeddings=True))
    assert set(tied.tensors) == {"token_embd.weight", "hf.model.strange"}


def test_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    weights = simple(
        model__layers__0__mlp__up_proj__weight=("F32", [1], 4),
        model__layers__00__mlp__up_proj__weight=("F32", [1], 4),
    )
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight"):
        SafetensorsSource(folder_with(tmp_path, weights))


def test_views_are_read_only_and_outlive_the_source(tmp_path: Path) -> None:
    source = SafetensorsSource(folder_with(tmp_path))
    view = source.raw("output_norm.weight")
    assert not view.flags.writeable
    source.drop_pages("output_norm.weight")
    source.close()
    np.testing.assert_array_equal(view, np.zeros(16))
    with pytest.raises(ValueError, match="closed"):
        source.raw("output_norm.weight")


# -- configuration -----------------------------------------------------------------------------------


def metadata(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return dict(SafetensorsSource(folder_with(tmp_path, **changes)).metadata)


def test_configuration_comes_under_gguf_keys(tmp_path: Path) -> None:
    found = metadata(tmp_path, torch_dtype="bfloat16", pretraining_tp=1)
    assert {key: value for key, value in found.items() if key.startswith("llama.")} == {
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500000.0,
        "llama.rope.dimension_count": 16,
        "llama.vocab_size": 32,
        "llama.hidden_act": "silu",
    }
    assert found["hf.torch_dtype"] == "bfloat16" and found["hf.pretraining_tp"] == 1
    assert found["hf.architecture"] == "LlamaForCausalLM"
    assert found["tokenizer.ggml.eos_token_ids"] == [2]


def test_defaults_of_heads_are_filled_in(tmp_path: Path) -> None:
    found = metadata(tmp_path, num_key_value_heads=None, head_dim=24, partial_rotary_factor=0.5)
    assert found["llama.attention.head_count_kv"] == 4
    assert found["llama.attention.key_length"] == 24 and found["llama.rope.dimension_count"] == 12


@pytest.mark.parametrize(
    ("classes", "model_type", "architecture"),
    [
        (["LlamaForCausalLM"], "llama", "llama"),
        (["MistralForCausalLM"], "mistral", "llama"),
        (None, "mistral", "llama"),
        (["Qwen3ForCausalLM"], "qwen3", "qwen3"),
        (["NewForCausalLM"], "new", "new"),
        (["LlamaForSequenceClassification"], "llama", "LlamaForSequenceClassification"),
    ],
)
def test_architectures_get_their_gguf_names(
    tmp_path: Path, classes: list[str] | None, model_type: str, architecture: str
) -> None:
    found = metadata(tmp_path, architectures=classes, model_type=model_type)
    assert found["general.architecture"] == architecture


LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_theta": None, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}},
    ],
)
def test_every_spelling_of_rope_scaling_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = metadata(tmp_path, **changes)
    rope = {key.removeprefix("llama.rope."): value for key, value in found.items() if ".rope." in key}
    assert rope == {
        "freq_base": 500000.0,
        "dimension_count": 16,
        "scaling.type": "llama3",
        "scaling.factor": 32.0,
        "scaling.low_freq_factor": 1.0,
        "scaling.high_freq_factor": 4.0,
        "scaling.original_context_length": 8192,
    }
    assert not [key for key in found if key.startswith("hf.rope")]


def test_yarn_and_what_no_key_exists_for(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.2}
    found = metadata(tmp_path, rope_scaling={**scaling, "mscale": 0.7})
    assert found["llama.rope.scaling.type"] == "yarn" and found["llama.rope.scaling.factor"] == 4.0
    assert found["llama.rope.scaling.yarn_beta_fast"] == 32.0
    assert found["llama.rope.scaling.yarn_beta_slow"] == 1.0
    assert found["llama.rope.scaling.attention_factor"] == 1.2
    assert found["llama.rope.scaling.original_context_length"] == 512  # Taken from max_position_embeddings.
    assert found["hf.rope_scaling.mscale"] == 0.7
    assert metadata(tmp_path, rope_parameters={"rope_type": "default"})["llama.rope.scaling.type"] == "none"
    layers = {"full_attention": {"rope_type": "default"}}
    assert metadata(tmp_path, rope_parameters=layers)["hf.rope_parameters"] == layers


def test_sliding_windows_count_only_when_used(tmp_path: Path) -> None:
    assert metadata(tmp_path, sliding_window=4096)["llama.attention.sliding_window"] == 4096
    found = metadata(tmp_path, sliding_window=4096, use_sliding_window=False)
    assert "llama.attention.sliding_window" not in found and "hf.sliding_window" not in found


def test_generation_settings_and_stop_tokens(tmp_path: Path) -> None:
    generation = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "eos_token_id": [7, 9], "do_sample": True}
    tmp_path.joinpath("generation_config.json").write_text(json.dumps(generation))
    found = metadata(tmp_path, bos_token_id=1, pad_token_id=-1)
    assert found["general.sampling.temp"] == 0.6 and found["general.sampling.top_p"] == 0.9
    assert found["general.sampling.top_k"] == 20
    assert found["tokenizer.ggml.eos_token_ids"] == [7, 9] and found["tokenizer.ggml.eos_token_id"] == 7
    assert found["tokenizer.ggml.bos_token_id"] == 1 and "tokenizer.ggml.padding_token_id" not in found
    tmp_path.joinpath("generation_config.json").write_text(json.dumps({**generation, "do_sample": False}))
    assert "general.sampling.temp" not in metadata(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "64"}, "hidden_size: found '64', expected an integer"),
        ({"hidden_size": -1}, "hidden_size: found -1"),
        ({"num_hidden_layers": True}, "num_hidden_layers: found True"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: found nan"),
        ({"rope_scaling": "linear"}, "rope_scaling: found 'linear'"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor: found '2'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: found 'yes', expected true or false"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"architectures": None, "model_type": None}, "neither architectures nor model_type"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
    ],
)
def test_nonsense_in_the_configuration_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        metadata(tmp_path, **changes)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": ' + "[" * 100_000, "\udcff"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    folder_with(tmp_path).joinpath("config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match=r"config\.json: configuration"):
        SafetensorsSource(tmp_path)


def test_weights_of_a_quantisation_library_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'bitsandbytes'"):
        metadata(tmp_path, quantization_config={"quant_method": "bitsandbytes", "bits": 4})


def test_weights_without_a_configuration_are_refused(tmp_path: Path) -> None:
    folder_with(tmp_path).joinpath("config.json").unlink()
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(FormatError, match=r"config\.json.*give a model folder"):
            SafetensorsSource(path)


# -- headers that lie --------------------------------------------------------------------------------


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x02\x00", "header length"),
        ((100).to_bytes(8, "little") + b"{}", "header length: found 100"),
        ((2**63).to_bytes(8, "little") + b"{}", "header length"),
        (pack(b"{"), "header: not valid JSON"),
        (pack(b"[" * 100_000), "header: not valid JSON"),
        (pack(b"\xff"), "header: not valid JSON"),
        (pack(b"[]"), "header: found a JSON list"),
        (pack(b'{"a": ' + b"9" * 5000 + b"}"), "header: not valid JSON"),
        (pack(b'{"a": {}, "a": {}}'), "'a' appears twice"),
        (pack({"a": 1}), "'a': found 1"),
        (pack({"a": entry("F31")}, bytes(8)), "'a', dtype: found 'F31'"),
        (pack({"a": entry(["F32"])}, bytes(8)), "'a', dtype"),
        (pack({"a": entry(shape="2")}, bytes(8)), "'a', shape"),
        (pack({"a": entry(shape=[-2])}, bytes(8)), "'a', shape"),
        (pack({"a": entry(shape=[2.0])}, bytes(8)), "'a', shape"),
        (pack({"a": entry(shape=[True, 2])}, bytes(8)), "'a', shape"),
        (pack({"a": entry(shape=[2**62, 2**62])}, bytes(8)), "'a', data_offsets: 8 bytes"),
        (pack({"a": entry(shape=[3])}, bytes(8)), "'a', data_offsets: 8 bytes, but F32"),
        (pack({"a": entry(offsets=[8, 0])}, bytes(8)), "'a', data_offsets: found"),
        (pack({"a": entry(offsets=[0])}, bytes(8)), "'a', data_offsets: found"),
        (pack({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "'a', data_offsets: found None"),
        (pack({"a": entry()}, bytes(7)), "'a', data_offsets: ends at byte"),
        (pack({"a": entry()}, bytes(9)), "data: the tensors end"),
        (pack({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "'b'.*overlaps"),
        (pack({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "'b'.*gap"),
    ],
)
def test_a_header_that_lies_is_refused_with_its_field(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        SafetensorsSource(folder_with(tmp_path, data))


@pytest.mark.parametrize(("dtype", "num_bytes"), [("C64", 64), ("F8_E8M0", 8), ("F4", 4), ("F6_E2M3", 6)])
def test_types_that_are_not_run_are_named(tmp_path: Path, dtype: str, num_bytes: int) -> None:
    weights = simple(a=(dtype, [8], num_bytes))
    with pytest.raises(UnsupportedError, match=f"'a' has the type {dtype}"):
        SafetensorsSource(folder_with(tmp_path, weights))


def test_damaged_headers_raise_only_the_promised_errors(tmp_path: Path) -> None:
    rng = random.Random(11)
    valid = simple(model__norm__weight=("F32", [4], 16), lm_head__weight=("BF16", [2, 4], 16))
    folder_with(tmp_path, valid)
    opened = 0
    for _ in range(500):
        data = bytearray(valid)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data) - 32)] = rng.choice(
                (rng.randrange(256), ord(rng.choice('0129{}[],:"')))
            )
        tmp_path.joinpath("model.safetensors").unlink()
        tmp_path.joinpath("model.safetensors").write_bytes(data)
        try:
            SafetensorsSource(tmp_path)
            opened += 1
        except (FormatError, UnsupportedError):
            pass
    assert 0 < opened < 400


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight"),
        ("model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"),
        ("model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        ("model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
        ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"),
        ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.3.self_attn.rotary_emb.inv_freq", None),
        ("model.layers.3.self_attn.q_proj.lora_A.weight", "hf.model.layers.3.self_attn.q_proj.lora_A.weight"),
        ("model.layers.x.mlp.up_proj.weight", "hf.model.layers.x.mlp.up_proj.weight"),
        ("blk.0.attn_q.weight", "hf.blk.0.attn_q.weight"),
    ],
)
def test_tensor_names_are_translated(name: str, canonical: str | None) -> None:
    assert canonical_name(name) == canonical

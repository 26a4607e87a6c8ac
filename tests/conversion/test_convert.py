"""Models from one format to the other and back: bytes, settings, tokenizers, parts; and what llama.cpp makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hf_models import HEAD, HEADS, KV_HEADS, LLAMA3, TEMPLATE, write_hf_model
from safetensors.numpy import load_file

import torchless
from torchless.conversion.convert import convert
from torchless.conversion.rotary_rows import row_order
from torchless.conversion.tokenizer_files import write_tokenizer_files
from torchless.conversion.tokenizer_metadata import tokenizer_metadata
from torchless.errors import InvalidRequestError, UnsupportedError
from torchless.text.tokenizer import Tokenizer
from torchless.weights.gguf import GgufSource
from torchless.weights.open import open_source

SharedData = Callable[[str], Path]


def assert_same_weights(folder: Path, other: Path) -> None:
    first, second = (open_source(path) for path in (folder, other))
    assert set(first.tensors) == set(second.tensors)
    for name, info in first.tensors.items():
        assert second.tensors[name] == info
        assert np.array_equal(first.raw(name), second.raw(name)), name


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_round_trip_gives_every_tensor_and_setting_back(tmp_path: Path, dtype: str, bias: bool) -> None:
    folder = write_hf_model(tmp_path / "tiny", dtype, bias=bias, rope_scaling=LLAMA3)
    convert(folder, tmp_path / "tiny.gguf")
    convert(tmp_path / "tiny.gguf", tmp_path / "back")
    assert_same_weights(folder, tmp_path / "back")
    original, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert all(original[name].tobytes() == back[name].tobytes() for name in original) and len(
        original
    ) == len(back)
    wanted = json.loads((folder / "config.json").read_text())
    found = json.loads((tmp_path / "back/config.json").read_text())
    assert found.pop("torch_dtype") == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    assert found == wanted
    generation = (folder / "generation_config.json").read_text()
    assert json.loads((tmp_path / "back/generation_config.json").read_text()) == json.loads(generation)


def test_the_gguf_file_says_what_other_programs_read(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "BF16", rope_scaling=LLAMA3)
    convert(folder, tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"] == "tiny"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_BF16
    assert fields["llama.rope.freq_base"] == 500000.0
    assert fields["tokenizer.ggml.pre"] == "llama-bpe"
    assert fields["tokenizer.chat_template"] == TEMPLATE
    assert fields["tokenizer.ggml.bos_token_id"] == 0
    assert fields["general.sampling.temp"] == pytest.approx(0.6)
    assert len(fields["tokenizer.ggml.tokens"]) == fields["llama.vocab_size"]
    assert not any(name.startswith(("hf.", "llama.rope.scaling")) for name in fields)
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert types["output_norm.weight"] == gguf.GGMLQuantizationType.F32
    assert types["blk.0.attn_q.weight"] == gguf.GGMLQuantizationType.BF16
    assert "rope_freqs.weight" in types


def test_query_rows_are_stored_with_the_partners_of_a_pair_side_by_side(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "F32")
    convert(folder, tmp_path / "tiny.gguf")
    original = load_file(folder / "model.safetensors")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors}
    for name, part, heads in (("q_proj", "attn_q", HEADS), ("k_proj", "attn_k", KV_HEADS)):
        rows = original[f"model.layers.1.self_attn.{name}.weight"]
        stored = found[f"blk.1.{part}.weight"].reshape(heads, HEAD // 2, 2, -1)
        halves = rows.reshape(heads, 2, HEAD // 2, -1)
        assert np.array_equal(stored[:, :, 0], halves[:, 0]) and np.array_equal(stored[:, :, 1], halves[:, 1])


def test_rotary_orders_undo_each_other() -> None:
    there, back = row_order(96, 3, 24, "interleaved"), row_order(96, 3, 24, "half")
    assert np.array_equal(there[back], np.arange(96))


def test_logits_are_the_same_up_to_rounding(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "F32", bias=True, rope_scaling=LLAMA3)
    convert(folder, tmp_path / "tiny.gguf")
    ids = [0, 5, 200, 17, 42, 99, 250, 3] * 4
    logits = [torchless.load(path, kv="f32").logits(ids) for path in (folder, tmp_path / "tiny.gguf")]
    assert np.abs(logits[0]).max() > 0.1
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-5)


def test_a_gguf_without_our_notes_gives_a_configuration_too(tmp_path: Path, shared_data: SharedData) -> None:
    convert(shared_data("stories260K/stories260K-f32.gguf"), tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    wanted = json.loads((shared_data("stories260K/hf") / "config.json").read_text())
    assert {key: config.get(key) for key in wanted} == wanted
    assert_same_weights(shared_data("stories260K/hf"), tmp_path / "hf")


def test_llama_3_factors_become_settings_again(tmp_path: Path) -> None:
    convert(
        write_hf_model(tmp_path / "tiny", rope_scaling={**LLAMA3, "factor": 32.0}), tmp_path / "tiny.gguf"
    )
    source = GgufSource(tmp_path / "tiny.gguf")
    from torchless.weights.gguf_parts import typed_metadata
    from torchless.weights.gguf_writer import write_gguf

    kept = {key: value for key, value in typed_metadata(source) if not key.startswith("torchless.")}
    tensors = [(info.name, info.shape, info.type, source.raw(info.name)) for info in source.tensors.values()]
    write_gguf(tmp_path / "foreign.gguf", kept, tensors)
    convert(tmp_path / "foreign.gguf", tmp_path / "back")
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert config["rope_scaling"] == {**LLAMA3, "factor": 32.0}
    assert config["eos_token_id"] == [1, 2]
    assert config["rms_norm_eps"] == 1e-5


def test_parts_are_written_and_merged_again(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny")
    [whole] = convert(folder, tmp_path / "whole.gguf")
    parts = convert(whole, tmp_path / "cut.gguf", split_max_size="40K")
    assert len(parts) > 2 and all(
        path.name == f"cut-{i:05}-of-{len(parts):05}.gguf" for i, path in enumerate(parts, 1)
    )
    reader = gguf.GGUFReader(parts[1])
    assert reader.fields["split.no"].contents() == 1 and reader.fields["split.no"].types[0].name == "UINT16"
    [merged] = convert(parts[2], tmp_path / "merged.gguf")
    assert merged.read_bytes() == whole.read_bytes()


def test_safetensors_shards_have_an_index(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny")
    paths = convert(folder, tmp_path / "shards", split_max_size="40K")
    index = json.loads((tmp_path / "shards/model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [path.name for path in paths]
    assert_same_weights(folder, tmp_path / "shards")
    assert_same_weights(folder, tmp_path / "shards")
    for path in paths:
        for name, values in load_file(path).items():
            assert index["weight_map"][name] == path.name and values.size


def test_conversion_to_a_recipe_equals_conversion_and_quantising(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "F32")
    convert(folder, tmp_path / "direct.gguf", type="q8_0")
    convert(folder, tmp_path / "plain.gguf")
    torchless.quantize(tmp_path / "plain.gguf", tmp_path / "later.gguf", "Q8_0")
    assert_same_weights(tmp_path / "direct.gguf", tmp_path / "later.gguf")
    convert(tmp_path / "direct.gguf", tmp_path / "decoded")
    source = open_source(tmp_path / "decoded")
    assert {info.type for info in source.tensors.values()} == {"F32"}


def test_float_types_are_rounded_on_request(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "F32")
    convert(folder, tmp_path / "half", type="F16")
    original, half = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "half"))
    assert all(np.array_equal(half[name], values.astype(np.float16)) for name, values in original.items())
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "float16"
    Tokenizer.from_folder(tmp_path / "half")


VOCABULARIES = ["llama-bpe", "qwen2", "deepseek-llm", "gpt-2", "llama-spm"]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_tokenizers_survive_the_way_to_files_and_back(
    tmp_path: Path, name: str, shared_data: SharedData
) -> None:
    metadata = GgufSource(shared_data(f"vocab/ggml-vocab-{name}.gguf")).metadata
    write_tokenizer_files(tmp_path, metadata, 2048)
    found = tokenizer_metadata(tmp_path, len(metadata["tokenizer.ggml.tokens"]))
    for key in ("model", "pre", "bos_token_id", "eos_token_id"):
        assert found.get(f"tokenizer.ggml.{key}") == metadata.get(f"tokenizer.ggml.{key}"), key
    for key in ("tokens", "merges", "token_type"):
        if f"tokenizer.ggml.{key}" in metadata:
            assert list(found[f"tokenizer.ggml.{key}"]) == list(metadata[f"tokenizer.ggml.{key}"]), key


def test_a_tokenizer_that_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny")
    state = json.loads((folder / "tokenizer.json").read_text())
    state["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+|\W"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UnsupportedError, match="cuts text into words in a way that has no name"):
        convert(folder, tmp_path / "tiny.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_what_would_destroy_something_is_refused(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny")
    [path] = convert(folder, tmp_path / "tiny.gguf")
    for dst, message in (
        (path, "source and destination are the same"),
        (folder, "source and destination|not an empty folder"),
        (tmp_path / "x-00001-of-00002.gguf", "part of a split model"),
        (tmp_path / "x.safetensors", "ending in .gguf, or a folder"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            convert(path, dst)
    with pytest.raises(InvalidRequestError, match="safetensors files hold"):
        convert(path, tmp_path / "new", type="Q4_0")
    with pytest.raises(InvalidRequestError, match="unknown recipe"):
        convert(path, tmp_path / "new.gguf", type="Q9")
    with pytest.raises(InvalidRequestError, match="is not a size"):
        convert(path, tmp_path / "new.gguf", split_max_size="much")


@pytest.mark.parametrize("rope", [None, LLAMA3, {"rope_type": "linear", "factor": 2.0}])
def test_llama_cpp_reads_what_is_written_and_agrees(tmp_path: Path, rope: dict[str, object] | None) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = write_hf_model(tmp_path / "tiny", "F32", bias=True, rope_scaling=rope)
    convert(folder, tmp_path / "tiny.gguf")
    parts = convert(folder, tmp_path / "cut.gguf", split_max_size="60K")
    ours = torchless.load(folder, kv="f32")
    text = "the cat sat on 12 mats<think>, then"
    ids = ours.tokenizer.encode(text)
    for path in (tmp_path / "tiny.gguf", parts[0]):
        theirs = llama_cpp.Llama(
            str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
        )
        assert theirs.tokenize(text.encode(), add_bos=True) == ids
        theirs.eval(ids)
        np.testing.assert_allclose(np.array(theirs.scores[: len(ids)]), ours.logits(ids), atol=5e-5)
        assert theirs.metadata["tokenizer.chat_template"] == TEMPLATE


def test_a_checkpoint_of_8_bit_floats_runs_and_converts(tmp_path: Path) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    folder = write_hf_model(tmp_path / "tiny", "BF16", quantization_config={"quant_method": "fp8"})
    stored = load_file(folder / "model.safetensors")
    plain = dict(stored)
    for name, values in plain.items():
        if "proj" in name:
            stored[name] = (values.astype(np.float32) * 64).astype(ml_dtypes.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = np.full((1, 1), 1 / 64, np.float32)
            plain[name] = (stored[name].astype(np.float32) / 64).astype(ml_dtypes.bfloat16)
    save_file(stored, folder / "model.safetensors")
    same = write_hf_model(tmp_path / "plain", "BF16")
    save_file(plain, same / "model.safetensors")
    assert_same_weights(folder, same)
    ids = [0, 5, 200, 17]
    assert np.array_equal(torchless.load(folder).logits(ids), torchless.load(same).logits(ids))
    convert(folder, tmp_path / "tiny.gguf")
    convert(tmp_path / "tiny.gguf", tmp_path / "back")
    assert_same_weights(same, tmp_path / "back")


def test_a_gptq_checkpoint_runs_and_converts_without_loss(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = write_hf_model(tmp_path / "tiny", "F16", quantization_config={"quant_method": "gptq", "bits": 4})
    stored, plain = load_file(folder / "model.safetensors"), {}
    random = np.random.default_rng(2)
    for name, values in list(stored.items()):
        plain[name] = values.astype(np.float32)
        if "proj" in name:
            outputs, inputs = values.shape
            codes = random.integers(0, 16, (inputs, outputs)).astype(np.uint32)
            scales = random.uniform(0.01, 0.03, (inputs // 32, outputs)).astype(np.float16)
            packed = sum(codes[i::8] << np.uint32(4 * i) for i in range(8))
            parent = name.removesuffix(".weight")
            del stored[name]
            stored[parent + ".qweight"] = np.asarray(packed, np.uint32).view(np.int32)
            stored[parent + ".qzeros"] = np.full((inputs // 32, outputs // 8), 0x77777777, np.int32)
            stored[parent + ".scales"] = scales
            plain[name] = np.ascontiguousarray((np.repeat(scales, 32, 0) * (codes.astype(np.float32) - 8)).T)
    save_file(stored, folder / "model.safetensors")
    same = write_hf_model(tmp_path / "plain", "F32")
    save_file(plain, same / "model.safetensors")
    ids = [0, 5, 200, 17]
    exact, packed_logits = (torchless.load(path, backend="reference").logits(ids) for path in (same, folder))
    np.testing.assert_allclose(packed_logits, exact, rtol=1e-6, atol=1e-6)
    [path] = convert(folder, tmp_path / "tiny.gguf")
    assert {info.type for info in GgufSource(path).tensors.values()} == {"F32", "F16", "Q4_0"}
    convert(path, tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert all(np.array_equal(back[name].astype(np.float32), values) for name, values in plain.items())
    assert "quantization_config" not in json.loads((tmp_path / "back/config.json").read_text())


def test_a_folder_is_quantised_in_one_go(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path / "tiny", "BF16")
    convert(folder, tmp_path / "wanted.gguf", type="Q8_0")
    torchless.quantize(folder, tmp_path / "found.gguf", "Q8_0")
    wanted, found = (GgufSource(tmp_path / f"{name}.gguf") for name in ("wanted", "found"))
    assert dict(wanted.metadata) == dict(found.metadata) and dict(wanted.value_types) == dict(
        found.value_types
    )
    assert_same_weights(wanted.path, found.path)


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path: Path) -> None:
    [path] = convert(write_hf_model(tmp_path / "tiny"), tmp_path / "tiny.gguf")
    before = set(tmp_path.rglob("*"))

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    for dst in (tmp_path / "new", tmp_path / "new.gguf"):
        for size in (None, "40K"):
            with pytest.raises(KeyboardInterrupt):
                convert(path, dst, split_max_size=size, progress=stop)
            assert set(tmp_path.rglob("*")) == before

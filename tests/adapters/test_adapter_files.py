"""Adapters that are refused: broken files, other models, and what torchless does not apply, each by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hf_models import write_hf_model
from lora_models import module_shapes, write_adapter
from safetensors.numpy import load_file

import torchless
from torchless.adapters.open import open_adapter, scaled_paths
from torchless.conversion.convert import convert
from torchless.errors import FormatError, InvalidRequestError, ModelNotFoundError, UnsupportedError
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_parts import typed_metadata
from torchless.weights.gguf_writer import write_gguf

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_model(tmp_path_factory.mktemp("model") / "tiny", "F32")


@pytest.fixture(scope="module")
def shapes(model: Path) -> dict[str, tuple[int, ...]]:
    return module_shapes(load_file(model / "model.safetensors"), ("q_proj", "down_proj"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora is True: torchless does not apply weight-decomposed"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        (
            {"target_parameters": ["mlp.experts.down_proj"]},
            r"target_parameters is .* does not apply adapted experts",
        ),
        ({"bias": "all"}, "bias is 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the model's own weights"),
        ({"init_lora_weights": "lora_ga"}, "changes the model's own weights"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config is .* smallest singular values"),
        ({"lora_alpha": ...}, "lora_alpha: it is missing"),
        ({"lora_alpha": "x"}, "lora_alpha: found 'x'"),
        ({"r": 5}, "rank 4, but adapter_config.json says 5"),
        ({"rank_pattern": {"(": 2}}, r"rank_pattern: '\(' is not a regular expression"),
    ],
)
def test_a_setting_that_is_not_computed_is_refused_by_name(
    settings: dict[str, Any], message: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", shapes)
    config = (tmp_path / "adapter/adapter_config.json").read_text()
    write_adapter(tmp_path / "adapter", shapes, **{k: v for k, v in settings.items() if k != "rank_pattern"})
    if "rank_pattern" in settings or "r" in settings:
        import json

        changed = {**json.loads(config), **settings}
        (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(changed))
    with pytest.raises((FormatError, UnsupportedError), match=message):
        open_adapter(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (f"base_model.model.{QUERY}.lora_magnitude_vector.weight", "is DoRA"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "an adapted embedding"),
        ("base_model.model.model.layers.0.strange.lora_A.weight", "'model.layers.0.strange', a layer that"),
        ("base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight", "has a matrix a but no b"),
    ],
)
def test_a_tensor_that_is_not_applied_is_refused_by_name(
    tensor: str, message: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", shapes, tensors={tensor: np.ones((4, 64), np.float32)})
    with pytest.raises((FormatError, UnsupportedError), match=message):
        open_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("begin", ["model.language_model.", "language_model.model.", ""])
def test_names_inside_other_models_are_those_of_the_language_model(
    begin: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "alone", shapes)
    inner = {begin + name.removeprefix("model."): shape for name, shape in shapes.items()}
    write_adapter(tmp_path / "inside", inner)
    alone, inside = (open_adapter(tmp_path / name).parts for name in ("alone", "inside"))
    assert alone.keys() == inside.keys() and len(alone) == len(shapes)
    assert all(np.array_equal(alone[name].b, inside[name].b) for name in alone)


def test_numbers_that_are_not_finite_are_refused(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    bad = np.full((4, 64), np.nan, np.float32)
    write_adapter(tmp_path / "adapter", shapes, tensors={f"base_model.model.{QUERY}.lora_A.weight": bad})
    with pytest.raises(FormatError, match=f"{QUERY}: its matrix a holds NaN"):
        open_adapter(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (QUERY, (64, 96), "changes a blk.0.attn_q.weight of 64 x 96, but that of .* is 64 x 64"),
        ("model.layers.7.self_attn.q_proj", (64, 64), "changes blk.7.attn_q.weight, which .* does not have"),
        ("model.layers.0.mlp.experts.3.up_proj", (64, 64), "which belongs to experts"),
        ("model.embed_tokens", (64, 64), "is not a linear layer"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    module: str, shape: tuple[int, int], message: str, model: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", {module: shape})
    with pytest.raises((FormatError, UnsupportedError), match=message):
        torchless.load(model, lora=tmp_path / "adapter")


def test_a_shared_output_layer_is_not_adapted(tmp_path: Path) -> None:
    tied = write_hf_model(tmp_path / "tied", "F32", tied=True)
    write_adapter(tmp_path / "adapter", {"lm_head": (300, 64)})
    with pytest.raises(UnsupportedError, match="shares with its embedding"):
        torchless.load(tied, lora=tmp_path / "adapter")


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The GGUF file with other metadata."""
    source = GgufSource(path)
    metadata = dict(typed_metadata(source))
    change(metadata)
    tensors = [(info.name, info.shape, info.type, source.raw(info.name)) for info in source.tensors.values()]
    changed = path.with_name("changed.gguf")
    write_gguf(changed, metadata, tensors)
    return changed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("adapter.lora.alpha", None, "adapter.lora.alpha: it is missing"),
        ("adapter.lora.alpha", np.float32(np.nan), "adapter.lora.alpha: found nan"),
        ("adapter.type", "control", "adapter.type is 'control'"),
        ("general.type", "model", "general.type is 'model', expected 'adapter'"),
        ("general.architecture", "phi3", "of the architecture 'phi3', but .* is 'llama'"),
        ("adapter.alora.invocation_tokens", [1, 2], "activated LoRA"),
    ],
)
def test_a_gguf_adapter_that_cannot_be_applied_says_why(
    key: str, value: Any, message: str, model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", shapes)
    [path] = convert(tmp_path / "adapter", tmp_path / "adapter.gguf", base=model)

    def change(metadata: dict[str, Any]) -> None:
        metadata.pop(key, None)
        if value is not None:
            metadata[key] = value

    with pytest.raises((FormatError, UnsupportedError), match=message):
        torchless.load(model, lora=rewrite(path, change))


def test_a_gguf_adapter_of_stacked_experts_is_refused_by_name(
    model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    """As llama.cpp's converter writes them: one matrix for each expert in a tensor."""
    write_adapter(tmp_path / "adapter", shapes)
    [path] = convert(tmp_path / "adapter", tmp_path / "adapter.gguf", base=model)
    source = GgufSource(path)
    tensors = [(info.name, info.shape, info.type, source.raw(info.name)) for info in source.tensors.values()]
    for part, shape in (("a", (8, 4, 64)), ("b", (8, 64, 4))):
        raw = np.ones(shape, np.float32).view(np.uint8).reshape(-1)
        tensors.append((f"blk.0.ffn_up_exps.weight.lora_{part}", shape, "F32", raw))
    write_gguf(tmp_path / "experts.gguf", dict(typed_metadata(source)), tensors)
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_up_exps\.weight, which belongs to experts"):
        torchless.load(model, lora=tmp_path / "experts.gguf")


def test_a_converted_adapter_follows_the_convention(
    model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    matrices = write_adapter(
        tmp_path / "adapter", shapes, rank=4, alpha=6.0, base_model_name_or_path=str(model)
    )
    [path] = convert(tmp_path / "adapter", tmp_path / "adapter.gguf")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == "llama" and fields["adapter.lora.alpha"] == 6.0
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    a, b = matrices["model.layers.1.mlp.down_proj"]
    assert np.array_equal(found["blk.1.ffn_down.weight.lora_a"], a)
    assert np.array_equal(found["blk.1.ffn_down.weight.lora_b"], b)
    rows = matrices[QUERY][1].reshape(4, 2, 8, 4).transpose(0, 2, 1, 3).reshape(64, 4)
    assert np.array_equal(found["blk.0.attn_q.weight.lora_b"], rows)


def test_a_conversion_without_its_model_asks_for_it(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", shapes)
    with pytest.raises(InvalidRequestError, match="'someone/some-model', which is not here: give it as base"):
        convert(tmp_path / "adapter", tmp_path / "adapter.gguf")
    with pytest.raises(InvalidRequestError, match="for which type means nothing"):
        convert(tmp_path / "adapter", tmp_path / "adapter.gguf", type="F16")


def test_paths_and_scales_are_read_in_every_form(tmp_path: Path) -> None:
    assert scaled_paths("a.gguf:0.5") == scaled_paths(("a.gguf", 0.5)) == scaled_paths([["a.gguf", 0.5]])
    assert scaled_paths(["a", Path("b")]) == ((Path("a"), 1.0), (Path("b"), 1.0))
    assert scaled_paths(None) == ()
    for wrong in (3, ["a", "b", 3], ("a", "b", 3), [("a", float("nan"))]):
        with pytest.raises(InvalidRequestError, match="lora"):
            scaled_paths(wrong)
    with pytest.raises(ModelNotFoundError, match="no such adapter"):
        open_adapter(tmp_path / "nothing")


def test_an_adapter_is_not_taken_for_a_model(
    model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter", shapes)
    [path] = convert(tmp_path / "adapter", tmp_path / "adapter.gguf", base=model)
    for adapter in (path, tmp_path / "adapter"):
        with pytest.raises(
            UnsupportedError, match="a LoRA adapter, not a model: give the model, and this as --lora"
        ):
            torchless.load(adapter)


def test_copies_of_the_models_own_weights_must_be_its_own(
    model: Path, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    own = load_file(model / "model.safetensors")["lm_head.weight"]
    name = "base_model.model.lm_head.base_layer.weight"
    write_adapter(tmp_path / "adapter", shapes, tensors={name: own})
    with torchless.load(model, lora=tmp_path / "adapter") as loaded:
        assert loaded.info["adapters"][0]["num_weights"] == len(shapes)
    write_adapter(tmp_path / "adapter", shapes, tensors={name: own + np.float32(0.01)})
    with pytest.raises(UnsupportedError, match="does not replace weights as a whole"):
        torchless.load(model, lora=tmp_path / "adapter")

"""Quantising whole files: types by recipe, exceptions, targets, metadata, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import torchless
from torchless import quants
from torchless._core import has_quantiser
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.bench.shapes import find_shape, tensor_shapes
from torchless.bench.synthetic import synthetic_metadata, write_synthetic
from torchless.errors import FormatError, InvalidRequestError
from torchless.quantization.budget import Candidate, choose_within, types_to_try
from torchless.quantization.quantize import Quantization, parse_size
from torchless.quantization.recipes import RECIPES, ModelFacts, find_recipe, may_quantize, tensor_type
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_writer import write_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize") / "model.gguf"
    write_synthetic(path, "test", "BF16", layers=8)
    return path


def types_of(path: Path) -> dict[str, str]:
    with GgufSource(path) as source:
        return {name: info.type for name, info in source.tensors.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_writes_a_file_with_its_types(model: Path, tmp_path: Path, recipe: str) -> None:
    done = torchless.quantize(model, tmp_path / "out.gguf", recipe, threads=2)
    found = types_of(tmp_path / "out.gguf")
    assert found == {tensor.name: tensor.type for tensor in done.tensors}
    assert found["token_embd.weight"] == RECIPES[recipe].head  # tied
    assert found["blk.3.attn_q.weight"] == RECIPES[recipe].base
    assert found["blk.0.attn_norm.weight"] == "F32"
    assert done.num_bytes <= (tmp_path / "out.gguf").stat().st_size
    with GgufSource(tmp_path / "out.gguf") as after, GgufSource(model) as before:
        assert after.metadata["general.file_type"] == RECIPES[recipe].file_type
        kept = {key: value for key, value in before.metadata.items() if key != "general.file_type"}
        assert {key: after.metadata[key] for key in kept} == kept
        assert {key: after.value_types[key] for key in kept} == {key: before.value_types[key] for key in kept}


def test_the_bytes_of_a_tensor_are_the_quantiser_s(model: Path, tmp_path: Path) -> None:
    torchless.quantize(model, tmp_path / "out.gguf", "Q4_0", threads=1)
    with GgufSource(tmp_path / "out.gguf") as after, GgufSource(model) as before:
        name = "blk.1.ffn_up.weight"
        values = quants.by_name("BF16").decode(before.raw(name)).reshape(before.tensors[name].shape)
        expected = quants.by_name("Q4_0").encode(values).reshape(-1)
        np.testing.assert_array_equal(after.raw(name), expected)


def test_rules_are_those_of_llama_cpp() -> None:
    """A few places of every rule, as llama-quantize prints them for 32 layers and 4 queries per key."""
    facts = ModelFacts(32, queries_per_kv=4)
    matrix = (256, 256)

    def types(recipe: str, part: str, layers: tuple[int, ...]) -> list[str]:
        chosen = find_recipe(recipe)
        return [tensor_type(chosen, f"blk.{i}.{part}.weight", matrix, facts) for i in layers]

    assert types("Q4_K_M", "attn_v", (0, 4, 5, 6, 7, 27, 28)) == [
        "Q6_K",
        "Q4_K",
        "Q4_K",
        "Q6_K",
        "Q4_K",
        "Q6_K",
        "Q6_K",
    ]
    assert types("Q4_K_S", "attn_v", (3, 4)) == ["Q5_K", "Q4_K"]
    assert types("Q4_K_S", "ffn_down", (3, 4)) == ["Q5_K", "Q4_K"]
    assert types("Q3_K_M", "ffn_down", (1, 2)) == ["Q5_K", "Q4_K"]
    assert types("Q2_K", "attn_v", (9,)) == ["Q4_K"]
    assert types("IQ3_S", "attn_v", (9,)) == ["Q4_K"] and types("IQ3_S", "ffn_down", (0,)) == ["IQ3_S"]
    assert types("IQ3_M", "ffn_down", (3, 4)) == ["Q4_K", "IQ3_S"]
    assert types("IQ3_M", "attn_output", (9,)) == ["Q4_K"]
    assert types("IQ4_XS", "ffn_down", (3, 4)) == ["Q5_K", "IQ4_XS"]
    assert tensor_type(find_recipe("Q4_K_M"), "blk.0.attn_q.weight", (64, 96), facts) == "Q5_0"
    assert tensor_type(find_recipe("Q6_K"), "blk.0.attn_q.weight", (64, 33), facts) == "F16"
    assert tensor_type(find_recipe("Q4_K_M"), "output.weight", (64, 96), facts) == "Q8_0"
    seventy = ModelFacts(80, queries_per_kv=8)
    assert tensor_type(find_recipe("Q4_K_S"), "blk.40.attn_v.weight", matrix, seventy) == "Q5_K"
    experts = ModelFacts(32, num_experts=8)
    assert tensor_type(find_recipe("Q4_K_M"), "blk.9.attn_k.weight", matrix, experts) == "Q8_0"
    assert tensor_type(find_recipe("MXFP4_MOE"), "blk.9.ffn_up_exps.weight", (8, 64, 64), experts) == "MXFP4"
    assert not may_quantize("blk.0.ffn_gate_inp.weight", (8, 64))
    assert not may_quantize("blk.0.attn_q.bias", (64, 64))


def test_exceptions_come_before_the_recipe(model: Path, tmp_path: Path) -> None:
    done = torchless.quantize(
        model, tmp_path / "out.gguf", "Q4_K_M",
        tensor_types={r"blk\.1\.ffn": "q8_0", r"attn_[qk]\.": "Q5_K"}, output_tensor_type="F16",
    )  # fmt: skip
    found = {tensor.name: tensor.type for tensor in done.tensors}
    assert found["blk.1.ffn_up.weight"] == "Q8_0" and found["blk.2.attn_k.weight"] == "Q5_K"
    assert found["token_embd.weight"] == "F16" and found["blk.2.ffn_up.weight"] == "Q4_K"
    pure = torchless.quantize(model, tmp_path / "out.gguf", "Q4_K_M", pure=True)
    assert {tensor.type for tensor in pure.tensors} == {"F32", "Q4_K"}


@pytest.mark.parametrize("target", [{"target_bpw": 5.0}, {"target_size": "3.2MiB"}])
def test_a_target_is_met_closely(model: Path, tmp_path: Path, target: dict[str, float | str]) -> None:
    done = torchless.quantize(model, tmp_path / "out.gguf", dry_run=True, **target)  # type: ignore[arg-type]
    num_weights = sum(int(np.prod(tensor.shape)) for tensor in done.tensors)
    limit = int(5.0 * num_weights / 8) if "target_bpw" in target else parse_size("3.2MiB")
    largest = max(tensor.num_bytes for tensor in done.tensors)
    assert limit - largest < done.num_bytes <= limit
    assert all(tensor.error is not None for tensor in done.tensors if tensor.type != "F32")
    assert not (tmp_path / "out.gguf").exists()


@pytest.fixture(scope="module")
def normal_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a bell curve, as trained ones have; those of synthetic models are spread evenly."""
    path, random = tmp_path_factory.mktemp("normal") / "model.gguf", np.random.default_rng(0)
    shape, recipe = find_shape("test"), find_recipe("F32")
    tensors = [
        (name, dims, "F32", iter([random.standard_normal(dims, np.float32).reshape(-1).view(np.uint8)]))
        for name, dims in tensor_shapes(shape).items()
    ]
    write_gguf(path, synthetic_metadata(shape, recipe, "bell curve"), iter(tensors))
    return path


@pytest.mark.parametrize("source", ["model", "normal_model"])
def test_of_types_of_one_size_the_better_one_is_taken(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """IQ3_S and Q3_K both have 110 bytes a block; which one errs less depends on how weights are spread."""
    path = request.getfixturevalue(source)
    done = torchless.quantize(path, tmp_path / "out.gguf", dry_run=True, target_bpw=3.8)
    better, worse = ("IQ3_S", "Q3_K") if source == "normal_model" else ("Q3_K", "IQ3_S")
    types = {tensor.type for tensor in done.tensors}
    assert better in types and worse not in types


@pytest.mark.parametrize("kind", ["IQ3_S", "MXFP4", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_1", "Q5_1", "BF16"])
def test_weights_made_for_a_type_get_it(kind: str, tmp_path: Path) -> None:
    """Blocks are decoded to F32; within the bytes of their own type it is the one that errs least, or not at all."""
    form, shape = quants.by_name(kind), (64, 256)
    raw = np.concatenate(list(random_blocks(BLOCK_TYPES[kind], 64 * 256, 0.05, [5]))).reshape(64, -1)
    if kind == "Q4_0":
        raw.reshape(-1, form.block_bytes)[:, 2] = 0  # codes of the peak, from which the step is found again
    elif kind in ("Q4_1", "Q5_1"):  # the least and the greatest code, from which offset and step are
        blocks = raw.reshape(-1, form.block_bytes)
        blocks[:, -16] = 0xF0
        if kind == "Q5_1":
            blocks[:, 4], blocks[:, 6] = blocks[:, 4] & 0xFE, blocks[:, 6] | 1
    values = form.decode(raw).astype("<f4").reshape(-1).view(np.uint8)
    head = {"general.architecture": "llama", "llama.block_count": 1}
    write_gguf(tmp_path / "model.gguf", head, [("blk.0.ffn_up.weight", shape, "F32", values)])
    size = raw.nbytes
    done = torchless.quantize(tmp_path / "model.gguf", tmp_path / "out.gguf", target_size=size, dry_run=True)
    assert [tensor.type for tensor in done.tensors] == [kind]


@pytest.mark.parametrize(
    ("source", "plain"), [("F32", "BF16"), ("BF16", "BF16"), ("F16", "F16"), ("Q8_0", "BF16")]
)
def test_targets_try_every_type_that_is_written_and_one_of_16_bits(source: str, plain: str) -> None:
    writable = {form.name for form in quants.all_formats().values() if has_quantiser(form.id)}
    tried = types_to_try(source, 256)
    assert set(tried) == writable - {"F32", "F16", "BF16"} | {plain} and len(tried) == len(set(tried))
    assert types_to_try(source, 17) == (plain,)
    sizes = [form.block_bytes / form.block_elements for form in map(quants.by_name, tried)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("source", "plain"), [("F32", "BF16"), ("F16", "F16")])
def test_a_target_with_room_keeps_f16_and_makes_bf16_of_other_floats(
    source: str, plain: str, tmp_path: Path
) -> None:
    write_synthetic(tmp_path / "model.gguf", "test", source)
    done = torchless.quantize(tmp_path / "model.gguf", tmp_path / "out.gguf", target_bpw=32, dry_run=True)
    assert {tensor.type for tensor in done.tensors if len(tensor.shape) > 1} == {plain}
    asked = torchless.quantize(
        tmp_path / "model.gguf",
        tmp_path / "out.gguf",
        target_bpw=32,
        tensor_types={"ffn_up": "F16"},
        dry_run=True,
    )
    assert {tensor.type for tensor in asked.tensors if "ffn_up" in tensor.name} == {"F16"}


def test_bytes_go_where_they_lower_the_cost_most() -> None:
    small = [Candidate("Q4_K", 10, 4.0), Candidate("Q6_K", 20, 1.0), Candidate("Q8_0", 30, 0.9)]
    large = [Candidate("Q4_K", 100, 8.0), Candidate("Q5_K", 110, 9.0), Candidate("Q6_K", 200, 2.0)]
    options = {"a": small, "b": large}
    assert choose_within(options, 110) == {"a": "Q4_K", "b": "Q4_K"}
    assert choose_within(options, 125) == {"a": "Q6_K", "b": "Q4_K"}
    assert choose_within(options, 230) == {"a": "Q8_0", "b": "Q6_K"}
    with pytest.raises(InvalidRequestError, match="leaves 109 B for the matrices"):
        choose_within(options, 109)


def test_what_makes_no_sense_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    def refuse(match: str, source: Path = model, recipe: str | None = "Q4_K_M", **options: object) -> None:
        with pytest.raises(InvalidRequestError, match=match):
            torchless.quantize(source, options.pop("to", out), recipe, **options)  # type: ignore[arg-type]
        assert not out.exists()

    refuse("unknown recipe 'Q4_X'", recipe="Q4_X")
    refuse("no recipe or target", recipe=None)
    refuse("more than one recipe or target", target_bpw=4.0)
    refuse("bits per weight between 1 and 32", recipe=None, target_bpw=0.5)
    refuse("not a size", recipe=None, target_size="big")
    refuse(r"leaves nothing for the matrices.*larger by \d+", recipe=None, target_size="1KiB")
    refuse("cannot quantise to IQ1_S", tensor_types={"ffn": "IQ1_S"})
    refuse("is no regular expression", tensor_types={"(": "Q8_0"})
    refuse("the same file", to=model)
    small = tmp_path / "small.gguf"
    torchless.quantize(model, small, "Q8_0")
    refuse("is quantised already", source=small)
    assert isinstance(torchless.quantize(small, out, "Q4_K_M", requantize=True), Quantization)


def test_a_weight_that_is_not_finite_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    values = np.ones((4, 256), np.float32)
    values[2, 7] = np.inf
    raw = values.reshape(-1).view(np.uint8)
    write_gguf(
        tmp_path / "bad.gguf",
        {"general.architecture": "llama", "llama.block_count": 1},
        [("blk.0.ffn_up.weight", (4, 256), "F32", raw)],
    )
    with pytest.raises(
        FormatError, match=r"'blk\.0\.ffn_up\.weight'.*row 2 holds a weight that is not finite"
    ):
        torchless.quantize(tmp_path / "bad.gguf", tmp_path / "out.gguf", "Q4_K_M")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_f32_keeps_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    """Widening rounds nothing, so it may also show what is wrong with a file."""
    bits = np.full((4, 256), 0x3F80, np.uint16)
    bits[2, 7], bits[3, 9] = 0x7F80, 0xFFC1
    head = {"general.architecture": "llama", "llama.block_count": 1}
    raw = bits.reshape(-1).view(np.uint8)
    write_gguf(tmp_path / "bf16.gguf", head, [("blk.0.ffn_up.weight", (4, 256), "BF16", raw)])
    torchless.quantize(tmp_path / "bf16.gguf", tmp_path / "f32.gguf", "F32")
    with GgufSource(tmp_path / "f32.gguf") as after:
        np.testing.assert_array_equal(
            after.raw("blk.0.ffn_up.weight").view(np.uint32), bits.reshape(-1).astype(np.uint32) << 16
        )


@pytest.mark.parametrize(
    ("text", "size"), [("700", 700), ("4GiB", 4 << 30), ("4G", 4 << 30), ("1.5 GB", 1_500_000_000)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size

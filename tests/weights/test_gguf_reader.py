"""The GGUF reader: what files say, files that lie, split files, byte orders, the life of the memory map."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_building import ALL_TYPES, GgufBuilder

from torchless.errors import FormatError, ModelNotFoundError, UnsupportedError
from torchless.quants import by_name
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_values import GgufArray, NumberArray, ValueType

SharedData = Callable[[str], Path]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def plain(value: Any) -> Any:
    """A metadata value as ordinary lists."""
    return [plain(item) for item in value] if isinstance(value, GgufArray) else value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_value_type_is_read_in_both_byte_orders(tmp_path: Path, order: str, version: int) -> None:
    builder = GgufBuilder(order, version)
    for key, item in ALL_TYPES.items():
        builder.key(key, *item)
    source = GgufSource(write(tmp_path / "x.gguf", builder.build()))
    assert list(source.metadata) == list(ALL_TYPES)
    for key, (kind, *value) in ALL_TYPES.items():
        found = source.metadata[key]
        assert source.value_types[key] == kind
        if kind != 9:
            assert found == value[0] and type(found) is type(value[0])
        elif value[0] == 6:
            assert list(found) == [np.float32(item) for item in value[1]]
        elif key != "l.nested":
            assert found == value[1] and found.element_type == value[0]
    assert plain(source.metadata["l.nested"]) == [[1, 2], ["x", "yz"], [[3]], []]
    assert source.version == version


def test_arrays_behave_like_lists(tmp_path: Path) -> None:
    builder = GgufBuilder().key("n", 9, 5, [3, 1, 2]).key("s", 9, 8, ["a", "b", "c"]).key("f", 9, 7, [1, 0])
    metadata = GgufSource(write(tmp_path / "x.gguf", builder.build())).metadata
    assert metadata["n"][-1] == 2 and metadata["n"][:2] == [3, 1] and len(metadata["n"]) == 3
    assert metadata["s"][::-1] == ["c", "b", "a"] and "b" in metadata["s"] and metadata["s"].index("c") == 2
    assert metadata["n"] != [3, 1] and metadata["n"] == (3, 1, 2) and metadata["f"] == [True, False]
    assert isinstance(metadata["n"], NumberArray)
    np.testing.assert_array_equal(metadata["n"].numpy(), [3, 1, 2])
    np.testing.assert_array_equal(np.asarray(metadata["n"], np.float64), [3.0, 1.0, 2.0])
    with pytest.raises(IndexError):
        metadata["s"][3]


def test_strings_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    raw = b"\xff\xfe ok \xe2\x96"
    builder = GgufBuilder().key("one", 8, raw).key("many", 9, 8, [raw, b"\x80"])
    metadata = GgufSource(write(tmp_path / "x.gguf", builder.build())).metadata
    assert metadata["one"].encode("utf-8", "surrogateescape") == raw
    assert metadata["many"][1].encode("utf-8", "surrogateescape") == b"\x80"
    assert [text.encode("utf-8", "surrogateescape") for text in metadata["many"]] == [raw, b"\x80"]


def test_shapes_are_rows_first_and_data_is_a_read_only_view(tmp_path: Path) -> None:
    values = np.arange(12, dtype="<f4")
    file = write(tmp_path / "x.gguf", GgufBuilder().tensor("a", [4, 3], 0, values.tobytes()).build())
    source = GgufSource(file)
    assert source.tensors["a"].shape == (3, 4) and source.tensors["a"].type == "F32"
    view = source.raw("a")
    np.testing.assert_array_equal(view.view("<f4"), values)
    assert np.shares_memory(view, source.raw("a"))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_views_outlive_the_source_and_dropped_pages_come_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    builder = GgufBuilder().key("s", 9, 8, ["x"]).tensor("a", [100_000], 24, values.tobytes())
    source = GgufSource(write(tmp_path / "x.gguf", builder.build()))
    view = source.raw("a")
    source.drop_pages("a")
    np.testing.assert_array_equal(view, values)
    metadata = source.metadata
    source.close()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.raw("a")
    del source
    gc.collect()
    np.testing.assert_array_equal(view, values)
    assert metadata["s"] == ["x"]


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_any_alignment_that_is_a_power_of_two_is_read(tmp_path: Path, alignment: int) -> None:
    builder = GgufBuilder(alignment=alignment).key("general.alignment", 4, alignment)
    builder.tensor("a", [3], 24, b"abc").tensor("b", [2], 24, b"de")
    source = GgufSource(write(tmp_path / "x.gguf", builder.build()))
    assert bytes(source.raw("a")) == b"abc" and bytes(source.raw("b")) == b"de"


@pytest.mark.parametrize(
    "name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
)
def test_big_endian_tensors_decode_to_the_same_weights(tmp_path: Path, name: str) -> None:
    form = by_name(name)
    little = form.encode(np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32))
    big = little.reshape(-1, form.block_bytes).copy()
    for offset, size in form.wide_fields:
        big[:, offset : offset + size] = big[:, offset : offset + size][:, ::-1].copy()
    file = write(tmp_path / "x.gguf", GgufBuilder(">").tensor("a", [256, 3], form.id, big.tobytes()).build())
    np.testing.assert_array_equal(GgufSource(file).raw("a"), little.ravel())


def test_big_endian_files_of_the_reference_writer_are_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(2).standard_normal((4, 8)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_uint32("llama.block_count", 7)
    writer.add_array("l", [1, 2, 3])
    writer.add_tensor("a", values.copy())
    writer.add_tensor("b", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GgufSource(tmp_path / "x.gguf")
    assert source.metadata["llama.block_count"] == 7 and source.metadata["l"] == [1, 2, 3]
    np.testing.assert_array_equal(source.raw("a").view("<f4"), values.ravel())
    np.testing.assert_array_equal(source.raw("b").view("<f2"), values.astype(np.float16).ravel())


def test_a_big_endian_tensor_that_torchless_does_not_run_is_refused_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "x.gguf", GgufBuilder(">").tensor("a", [256], 15, bytes(292)).build())
    source = GgufSource(file)
    assert source.tensors["a"].type == "Q8_K"
    with pytest.raises(UnsupportedError, match="Q8_K"):
        source.raw("a")


# -- files that lie ----------------------------------------------------------------------------------

MALFORMED = {
    "DATA_BAD_ALIGN": "general.alignment",
    "DATA_INCONSISTENT_ALIGN": "offset",
    "DATA_MEM_SIZE_OVERFLOW": "data",
    "DATA_NOT_ENOUGH_DATA": "data",
    "HEADER_BAD_MAGIC": "magic",
    "HEADER_BAD_N_KV": "metadata count",
    "HEADER_BAD_N_TENSORS": "tensor count",
    "HEADER_BAD_VERSION_0": "version",
    "HEADER_BAD_VERSION_1": "version",
    "HEADER_BAD_VERSION_FUTURE": "version",
    "KV_BAD_ALIGN": "general.alignment",
    "KV_BAD_KEY_SIZE": "metadata key 0",
    "KV_BAD_TYPE": "value type",
    "KV_DUPLICATE_KEY": "metadata key 1",
    "KV_EMPTY_KEY": "metadata key 0",
    "KV_WRONG_TYPE_ALIGN": "general.alignment",
    "TENSORS_BAD_ALIGN": "general.alignment",
    "TENSORS_BAD_NAME_SIZE": "name of tensor 0",
    "TENSORS_BAD_N_DIMS": "number of dimensions",
    "TENSORS_BAD_OFFSET": "offset",
    "TENSORS_BAD_SHAPE": "dimension 0",
    "TENSORS_BAD_TYPE": "type",
    "TENSORS_DUPLICATE_NAME": "tensor 1",
    "TENSORS_INCONSISTENT_ALIGN": "data",
    "TENSORS_NBYTES_PAD_WRAP": "shape",
    "TENSORS_NBYTES_TOO_BIG": "shape",
    "TENSORS_NE_TOO_BIG": "dimension 1",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_each_malformed_file_is_refused_with_its_field(shared_data: SharedData, name: str) -> None:
    file = shared_data("gguf-malformed") / f"bad-{name}-seed42.gguf"
    with pytest.raises(FormatError, match=MALFORMED[name]) as caught:
        GgufSource(file)
    assert str(file) in str(caught.value)


def test_the_list_of_malformed_files_is_complete(shared_data: SharedData) -> None:
    files = shared_data("gguf-malformed").glob("bad-*.gguf")
    assert {file.name.removeprefix("bad-").removesuffix("-seed42.gguf") for file in files} == set(MALFORMED)


def test_odd_but_valid_files_open(shared_data: SharedData) -> None:
    files = sorted(shared_data("gguf-malformed").glob("ok-*.gguf"))
    assert len(files) == 7
    for file in files:
        source = GgufSource(file)
        assert all(len(repr(value)) > 0 for value in source.metadata.values())


def test_a_header_without_its_data_can_be_listed_but_not_read(tmp_path: Path) -> None:
    data = GgufBuilder().tensor("a", [8], 0, bytes(32)).build()
    source = GgufSource(write(tmp_path / "x.gguf", data[:-32]))
    assert source.tensors["a"].num_bytes == 32
    with pytest.raises(FormatError, match=r"tensor 'a', data.*header only"):
        source.raw("a")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    builder = GgufBuilder()
    for key, item in ALL_TYPES.items():
        builder.key(key, *item)
    data = builder.tensor("a", [8], 0, bytes(32)).tensor("b", [3], 0, bytes(12)).build()
    path = write(tmp_path / "x.gguf", data)
    header_only = len(data) - len(builder.data)
    without_padding = len(data) - 20
    for size in reversed(range(len(data))):
        os.truncate(path, size)
        if size in (header_only, without_padding):
            GgufSource(path)
            continue
        with pytest.raises(FormatError):
            GgufSource(path)


@pytest.mark.parametrize(
    ("field", "builder"),
    [
        ("'s', string 1", GgufBuilder().key("s", 9, 8, ["a", "b" * 40])),
        ("'s', number of elements", GgufBuilder().key("s", 9, 4, [1, 2, 3, 4, 5, 6])),
    ],
)
def test_an_array_that_reaches_past_the_end_is_refused(
    tmp_path: Path, field: str, builder: GgufBuilder
) -> None:
    data = builder.build()
    with pytest.raises(FormatError, match=field):
        GgufSource(write(tmp_path / "x.gguf", data[:-32]))


def test_arrays_nested_too_deep_are_refused(tmp_path: Path) -> None:
    value: tuple[int, list[Any]] = (0, [1])
    for _ in range(20):
        value = (9, [value])
    with pytest.raises(FormatError, match=r"'deep'.*nested"):
        GgufSource(write(tmp_path / "x.gguf", GgufBuilder().key("deep", 9, *value).build()))


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    builder = GgufBuilder().tensor("a", [8], 0, bytes(32)).tensor("b", [8], 0, bytes(32), offset=0)
    with pytest.raises(FormatError, match="tensor 'b', offset: found 0, expected 32"):
        GgufSource(write(tmp_path / "x.gguf", builder.build()))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="empty"):
        GgufSource(write(tmp_path / "x.gguf", b""))


# -- split files -------------------------------------------------------------------------------------


def split_model(folder: Path, count: int = 3) -> list[Path]:
    """`count` parts with one tensor each."""
    files = []
    for index in range(count):
        builder = GgufBuilder()
        if index == 0:
            builder.key("general.architecture", 8, "llama")
        builder.key("split.no", 2, index).key("split.count", 2, count).key("split.tensors.count", 5, count)
        builder.tensor(f"t{index}", [4], 0, np.full(4, index, "<f4").tobytes())
        files.append(write(folder / f"m-{index + 1:05}-of-{count:05}.gguf", builder.build()))
    return files


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_a_split_model_opens_by_any_part(tmp_path: Path, opened: int) -> None:
    source = GgufSource(split_model(tmp_path)[opened])
    assert list(source.tensors) == ["t0", "t1", "t2"] and source.num_parts == 3
    assert source.metadata["general.architecture"] == "llama"
    for index in range(3):
        np.testing.assert_array_equal(source.raw(f"t{index}").view("<f4"), np.full(4, index))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    files = split_model(tmp_path)
    files[1].unlink()
    with pytest.raises(ModelNotFoundError, match=r"m-00002-of-00003\.gguf.*part 2 of 3"):
        GgufSource(files[2])


def test_a_renamed_part_is_refused(tmp_path: Path) -> None:
    files = split_model(tmp_path)
    with pytest.raises(FormatError, match=r"split\.count"):
        GgufSource(files[0].rename(tmp_path / "model.gguf"))
    files = split_model(tmp_path)
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(FormatError, match=r"split\.no: found 1, expected 2"):
        GgufSource(files[0])


def test_a_tensor_count_that_does_not_fit_the_parts_is_refused(tmp_path: Path) -> None:
    files = split_model(tmp_path, 2)
    builder = GgufBuilder().key("split.no", 2, 0).key("split.count", 2, 2).key("split.tensors.count", 5, 9)
    write(files[0], builder.tensor("t0", [4], 0, bytes(16)).build())
    with pytest.raises(FormatError, match=r"split\.tensors\.count: found 9"):
        GgufSource(files[1])


# -- real files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["stories260K-f32", "stories260K-BF16", "stories260K-Q4_0", "stories260K-Q5_1"]
)
def test_real_files_read_as_the_reference_reader_reads_them(shared_data: SharedData, name: str) -> None:
    gguf = pytest.importorskip("gguf")
    file = shared_data("stories260K") / f"{name}.gguf"
    source, reference = GgufSource(file), gguf.GGUFReader(file)
    for key, field in reference.fields.items():
        if not key.startswith("GGUF."):
            assert source.metadata[key] == field.contents(), key
    assert [item.name for item in reference.tensors] == list(source.tensors)
    for item in reference.tensors:
        info = source.tensors[item.name]
        assert info.type == item.tensor_type.name and info.shape == tuple(map(int, reversed(item.shape)))
        np.testing.assert_array_equal(source.raw(item.name), item.data.reshape(-1).view(np.uint8))


def test_a_vocabulary_of_128k_tokens_opens_and_reads_in_300_ms(shared_data: SharedData) -> None:
    file = shared_data("vocab") / "ggml-vocab-llama-bpe.gguf"
    times = []  # Of this process, so that a busy machine does not fail the test.
    for _ in range(3):
        start = time.process_time()
        metadata = GgufSource(file).metadata
        tokens = list(metadata["tokenizer.ggml.tokens"])
        merges = list(metadata["tokenizer.ggml.merges"])
        times.append(time.process_time() - start)
    assert len(tokens) == 128256 and len(merges) == 280147 and merges[0] == "Ġ Ġ"
    assert metadata["tokenizer.ggml.token_type"].element_type == ValueType.INT32
    assert min(times) < 0.3

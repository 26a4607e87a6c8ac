"""The GGUF writer: what it writes is read back by this package's reader and by the reference reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_building import ALL_TYPES, GgufBuilder

from torchless.errors import InvalidRequestError
from torchless.quants import by_name
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_values import ValueType
from torchless.weights.gguf_writer import TypedValue, write_gguf

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.rope.freq_base": 10000.0,
    "negative": -5,
    "large": 2**40,
    "largest": 2**64 - 1,
    "smallest": -(2**63),
    "flag": True,
    "tokens": ["<s>", "▁a", "b\udcff"],
    "scores": [0.5, -1.0],
    "types": [1, 3, 1],
    "mixed": [1, 0.5],
    "wide": [1, 2**40],
    "flags": [True, False],
    "nested": [[1, 2], [3]],
    "array": np.array([1, 2], np.uint16),
    "scalar": np.float64(0.1),
    "typed": TypedValue(ValueType.UINT8, 7),
    "typed list": TypedValue(ValueType.UINT64, [1, 2]),
    "empty": TypedValue(ValueType.STRING, []),
}


def tensors() -> list[tuple[str, tuple[int, ...], str, Any]]:
    x = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    return [
        ("vector", (5,), "F32", np.arange(5, dtype="<f4").view(np.uint8)),
        ("matrix", (3, 256), "Q4_K", by_name("Q4_K").encode(x)),
        ("experts", (2, 3, 32), "Q8_0", iter([np.full(100, 3, np.uint8), np.full(104, 4, np.uint8)])),
        ("none", (0, 4), "F16", np.empty(0, np.uint8)),
        ("not run", (1, 256), "IQ2_XXS", bytearray_array(66)),
    ]


def bytearray_array(size: int) -> np.ndarray:
    return np.frombuffer(bytes(range(size)), np.uint8)


def test_values_get_the_types_that_other_programs_expect(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", METADATA, [])
    source = GgufSource(tmp_path / "x.gguf")
    types = {key: kind.name for key, kind in source.value_types.items() if kind != ValueType.ARRAY}
    assert types == {
        "general.architecture": "STRING", "llama.block_count": "UINT32", "llama.rope.freq_base": "FLOAT32",
        "negative": "INT32", "large": "UINT64", "largest": "UINT64", "smallest": "INT64", "flag": "BOOL",
        "scalar": "FLOAT64", "typed": "UINT8",
    }  # fmt: skip
    arrays = {key: source.metadata[key].element_type.name for key in METADATA if key not in types}
    assert arrays == {
        "tokens": "STRING", "scores": "FLOAT32", "types": "INT32", "mixed": "FLOAT32", "wide": "INT64",
        "flags": "BOOL", "nested": "ARRAY", "array": "UINT16", "typed list": "UINT64", "empty": "STRING",
    }  # fmt: skip
    for key, value in METADATA.items():
        expected = value.value if isinstance(value, TypedValue) else value
        expected = expected.tolist() if isinstance(expected, np.ndarray) else expected
        assert source.metadata[key] == expected, key


def test_the_reference_reader_reads_what_is_written(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    metadata = {key: value for key, value in METADATA.items() if key not in ("nested", "tokens", "empty")}
    metadata["tokens"] = ["<s>", "▁a"]
    write_gguf(tmp_path / "x.gguf", metadata, tensors())
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    for key, value in metadata.items():
        expected = value.value if isinstance(value, TypedValue) else value
        expected = expected.tolist() if isinstance(expected, np.ndarray) else expected
        assert reader.fields[key].contents() == expected, key
    source = GgufSource(tmp_path / "x.gguf")
    for item in reader.tensors:
        np.testing.assert_array_equal(item.data.reshape(-1).view(np.uint8), source.raw(item.name))
    assert [item.name for item in reader.tensors] == [item[0] for item in tensors()]


def test_files_of_the_reference_writer_are_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("u", 3)
    writer.add_array("s", ["a", "ü"])
    writer.add_tensor("f", values)
    writer.add_tensor("q", gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0), raw_dtype=8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GgufSource(tmp_path / "x.gguf")
    assert source.metadata["u"] == 3 and source.metadata["s"] == ["a", "ü"]
    assert source.tensors["q"].type == "Q8_0" and source.tensors["q"].shape == (4, 64)
    np.testing.assert_array_equal(source.raw("f").view("<f4").reshape(4, 64), values)
    np.testing.assert_array_equal(source.raw("q"), by_name("Q8_0").encode(values).ravel())


def test_tensors_keep_shape_type_and_bytes(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", {}, iter(tensors()))
    source = GgufSource(tmp_path / "x.gguf")
    for name, shape, kind, data in tensors():
        raw = (
            np.concatenate([np.ravel(part) for part in data]) if isinstance(data, Iterator) else data.ravel()
        )
        assert (source.tensors[name].shape, source.tensors[name].type) == (shape, kind)
        np.testing.assert_array_equal(source.raw(name), raw)


def test_metadata_of_a_source_is_written_back_unchanged(tmp_path: Path) -> None:
    builder = GgufBuilder()
    for key, item in ALL_TYPES.items():
        builder.key(key, *item)
    (tmp_path / "a.gguf").write_bytes(builder.build())
    first = GgufSource(tmp_path / "a.gguf")
    typed = {
        key: value if kind == ValueType.ARRAY else TypedValue(kind, value)
        for (key, value), kind in zip(first.metadata.items(), first.value_types.values(), strict=True)
    }
    write_gguf(tmp_path / "b.gguf", typed, [])
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_a_model_is_copied_byte_for_byte(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    original = shared_data("stories260K") / "stories260K-Q4_0.gguf"
    source = GgufSource(original)
    metadata = {
        key: value if kind == ValueType.ARRAY else TypedValue(kind, value)
        for (key, value), kind in zip(source.metadata.items(), source.value_types.values(), strict=True)
    }
    listed = [(name, info.shape, info.type, source.raw(name)) for name, info in source.tensors.items()]
    write_gguf(tmp_path / "copy.gguf", metadata, listed)
    assert (tmp_path / "copy.gguf").read_bytes() == original.read_bytes()


def test_alignment_follows_the_metadata(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", {"general.alignment": 4096}, [("a", (3,), "I8", np.zeros(3, np.uint8))])
    assert (tmp_path / "x.gguf").stat().st_size == 8192
    assert GgufSource(tmp_path / "x.gguf").tensors["a"].num_bytes == 3
    with pytest.raises(InvalidRequestError, match="power of two"):
        write_gguf(tmp_path / "y.gguf", {"general.alignment": 24}, [])


def test_data_is_asked_for_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []

    def chunks(name: str) -> Iterator[np.ndarray]:
        assert not alive
        alive.append(name)
        yield np.zeros(16, np.uint8)
        yield np.zeros(16, np.uint8)
        alive.remove(name)

    write_gguf(tmp_path / "x.gguf", {}, [(name, (8,), "F32", chunks(name)) for name in "abc"])
    assert GgufSource(tmp_path / "x.gguf").tensors.keys() == set("abc")


BYTES = np.zeros(32, np.uint8)


@pytest.mark.parametrize(
    ("metadata", "listed", "message"),
    [
        ({"": 1}, [], "key is empty"),
        ({"k": None}, [], "'k'.*NoneType"),
        ({"k": []}, [], "'k'.*nothing"),
        ({"k": [1, "a"]}, [], "'k'.*int32, string"),
        ({"k": 2**64}, [], "'k'.*uint64"),
        ({"k": TypedValue(ValueType.UINT8, 256)}, [], "'k'.*uint8"),
        ({"k": np.array([1j])}, [], "'k'.*complex"),
        ({}, [("a", (8,), "Q9_X", BYTES)], "'a'.*Q9_X"),
        ({}, [("a", (8,), "F32", BYTES), ("a", (8,), "F32", BYTES)], "'a'.*unique"),
        ({}, [("a" * 64, (8,), "F32", BYTES)], "63 bytes"),
        ({}, [("a", (2, 33), "Q8_0", BYTES)], "'a'.*whole blocks"),
        ({}, [("a", (1, 1, 1, 1, 1), "F32", BYTES)], "'a'.*4 dimensions"),
        ({}, [("a", (9,), "F32", BYTES)], "'a': got 32 bytes"),
        ({}, [("a", (7,), "F32", BYTES)], "'a': got 32 bytes"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_and_leaves_no_file(
    tmp_path: Path, metadata: dict[str, Any], listed: list[Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        write_gguf(tmp_path / "x.gguf", metadata, listed)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(16, np.uint8)
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        write_gguf(path, {}, [("a", (8,), "F32", broken())])
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_folders_that_are_missing_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "out.gguf"
    write_gguf(path, {"general.name": "x"}, [("a", (1, 2), "F32", np.zeros(8, np.uint8))])
    assert [item.name for item in path.parent.iterdir()] == ["out.gguf"]

"""Hugging Face model folders (config.json and .safetensors files) as a weight source, memory-mapped.

A safetensors file is an 8-byte little-endian header length, a JSON object that gives type, shape and byte
range of each tensor, and the bytes. The header is hostile until checked: every range must be inside the
file, of the size that type and shape say, and the ranges must fill the data section without gap or overlap.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

from torchless.errors import FormatError, ModelNotFoundError, UnsupportedError
from torchless.quants import Bytes
from torchless.weights.hf_config import read_json, translate
from torchless.weights.mapped_file import MappedFile
from torchless.weights.names import canonical_name
from torchless.weights.source import TensorInfo

__all__ = ["SafetensorsSource", "read_safetensors_header"]

_MAX_HEADER_BYTES = 100_000_000  # The limit of the format's own library.
_ELEMENT_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_SUPPORTED = ("F32", "F16", "BF16")
_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_INDEX_SUFFIX = ".safetensors.index.json"
_INDEX_NAME = "model" + _INDEX_SUFFIX


class StoredTensor(NamedTuple):
    """One entry of a file's header; `offset` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


class SafetensorsSource:
    """A Hugging Face model folder, opened and checked. Implements `source.WeightSource`.

    Tensor names are GGUF's (see `names`), metadata is config.json and generation_config.json under GGUF's
    keys (see `hf_config`); tensors of tied embeddings appear once.

    Args:
        path: the folder, one of its .safetensors files (a shard stands for all shards), or its index.
        config_path: the configuration, if it is not the folder's config.json.

    Raises:
        FormatError: a file is broken, or files are missing; the message names file and field.
        ModelNotFoundError: a shard is missing.
        UnsupportedError: a tensor type other than F32, F16, BF16, by name.

    Example:
        >>> with SafetensorsSource("Llama-3.2-1B") as source:                       # doctest: +SKIP
        ...     source.metadata["llama.block_count"], source.tensors["output_norm.weight"].type
        (16, 'BF16')
    """

    path: Path
    format: Literal["gguf", "safetensors"] = "safetensors"
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"] = "half"

    def __init__(self, path: str | Path, config_path: str | Path | None = None) -> None:
        self.path = Path(path)
        folder = self.path if self.path.is_dir() else self.path.parent
        config = folder / "config.json" if config_path is None else Path(config_path)
        if not config.is_file():
            raise FormatError(
                f"{self.path}: there is no {config.name} beside the weights; a safetensors file does not say "
                f"what model it holds: give a model folder with config.json"
            )
        generation = config.with_name("generation_config.json")
        self.config_path, self.generation_path = config, generation if generation.is_file() else None
        metadata = translate(config, self.generation_path)
        self.metadata = MappingProxyType(metadata)
        tied = metadata.get(f"{metadata['general.architecture']}.tie_word_embeddings", False)
        self._places: dict[str, tuple[MappedFile, StoredTensor]] = {}
        self._files: list[MappedFile] = []
        tensors: dict[str, TensorInfo] = {}
        for file_path, wanted in _weight_files(self.path).items():
            file = _map(file_path)
            self._files.append(file)
            for info, stored in _named_tensors(file, wanted, tied):
                if info.name in tensors:
                    other = self._places[info.name][0].path.name
                    raise FormatError(f"{file_path}: tensor {info.name!r} is in {other} already")
                tensors[info.name] = info
                self._places[info.name] = file, stored
        self.tensors = MappingProxyType(tensors)

    def raw(self, name: str) -> Bytes:
        """The stored bytes of a tensor: a read-only zero-copy view, aligned to 8 bytes at least."""
        file, stored = self._places[name]
        return file.view(stored.offset, stored.num_bytes)

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the operating system take back the memory behind a tensor, or behind `num_bytes` bytes of it from
        `start` on; a later read loads it again."""
        file, stored = self._places[name]
        file.drop_pages(stored.offset + start, stored.num_bytes - start if num_bytes is None else num_bytes)

    def close(self) -> None:
        """Lets go of the tensor data; it is unmapped once the last view is gone."""
        for file in self._files:
            file.close()

    def __enter__(self) -> SafetensorsSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_safetensors_header(file: MappedFile) -> dict[str, StoredTensor]:
    """The tensors of one file in the order of their bytes. Raises FormatError naming the field."""

    def fail(field: str, problem: str) -> NoReturn:
        raise FormatError(f"{file.path}: not a valid safetensors file: {field}: {problem}")

    data = file.header
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MAX_HEADER_BYTES):
        fail("header length", f"found {length}, but the file has {len(data)} bytes (the limit is 100 MB)")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        fail("header", f"not valid JSON: {error}")
    if not isinstance(header, dict):
        fail("header", f"found a JSON {type(header).__name__}, expected an object")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {name: _stored_tensor(name, entry, start, fail) for name, entry in header.items()}
    position = start
    ordered = sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].num_bytes))
    for name, stored in ordered:
        if stored.offset != position:
            kind = "overlaps the tensor before it" if stored.offset < position else "leaves a gap before it"
            fail(f"tensor {name!r}, data_offsets", f"starts at {stored.offset - start}, which {kind}")
        position += stored.num_bytes
        if position > len(data):
            fail(f"tensor {name!r}, data_offsets", f"ends at byte {position} of a file of {len(data)}")
    if position != len(data):
        fail("data", f"the tensors end at byte {position} but the file has {len(data)}")
    return dict(ordered)


def _stored_tensor(name: str, entry: Any, start: int, fail: Any) -> StoredTensor:
    """One checked entry of a header, its range not yet compared with the others."""
    field = f"tensor {name!r}"
    if not isinstance(entry, dict):
        fail(field, f"found {entry!r:.60}, expected an object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _ELEMENT_BITS:
        fail(f"{field}, dtype", f"found {dtype!r:.60}, expected one of {', '.join(_ELEMENT_BITS)}")
    if not _are_sizes(shape) or len(shape) > 8:
        fail(f"{field}, shape", f"found {shape!r:.60}, expected a list of at most 8 sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        fail(f"{field}, data_offsets", f"found {offsets!r:.60}, expected [begin, end]")
    expected = (math.prod(shape) * _ELEMENT_BITS[dtype] + 7) // 8
    num_bytes = offsets[1] - offsets[0]
    if num_bytes != expected:
        fail(f"{field}, data_offsets", f"{num_bytes} bytes, but {dtype} of shape {shape} takes {expected}")
    return StoredTensor(dtype, tuple(shape), start + offsets[0], num_bytes)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} appears twice")
    return found


def _named_tensors(
    file: MappedFile, wanted: set[str] | None, tied: bool
) -> list[tuple[TensorInfo, StoredTensor]]:
    """A file's tensors under their canonical names, in file order, without buffers and tied copies."""
    stored = read_safetensors_header(file)
    missing = (wanted or set()) - stored.keys()
    if missing:
        raise FormatError(
            f"{file.path}: tensor {min(missing)!r} is missing, though the index says it is here"
        )
    found = []
    for source_name, tensor in stored.items():
        name = canonical_name(source_name)
        if name is None or (tied and name == "output.weight"):
            continue
        if tensor.dtype not in _SUPPORTED:
            raise UnsupportedError(
                f"{file.path}: tensor {source_name!r} has the type {tensor.dtype}; torchless reads "
                f"{', '.join(_SUPPORTED)} from safetensors files"
            )
        found.append((TensorInfo(name, tensor.shape, tensor.dtype, tensor.num_bytes), tensor))
    return found


def _weight_files(path: Path) -> dict[Path, set[str] | None]:
    """The files to read, each with the tensors that an index places there (None without an index)."""
    if path.name.endswith(_INDEX_SUFFIX):
        return _indexed_files(path)
    if path.is_file():
        return dict.fromkeys(_shards(path))
    if (path / "model.safetensors").is_file():
        return {path / "model.safetensors": None}
    if (path / _INDEX_NAME).is_file():
        return _indexed_files(path / _INDEX_NAME)
    files = sorted(item for item in path.glob("*.safetensors") if item.is_file())
    if not files:
        raise FormatError(f"{path}: the folder has no .safetensors file")
    shards = _shards(files[0])
    if not set(files) <= set(shards):
        names = ", ".join(item.name for item in files[:5])
        raise FormatError(
            f"{path}: several .safetensors files and no {_INDEX_NAME}: {names}; give one of them"
        )
    return dict.fromkeys(shards)


def _shards(path: Path) -> list[Path]:
    """All files of the set that `path` belongs to by its name."""
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    return [path.with_name(f"{match['stem']}-{i + 1:05}-of-{count:05}.safetensors") for i in range(count)]


def _indexed_files(index: Path) -> dict[Path, set[str] | None]:
    places = read_json(index, "index").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(
            f"{index}: weight_map: found {places!r:.60}, expected an object of tensors and files"
        )
    files: dict[Path, set[str] | None] = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise FormatError(f"{index}: weight_map: {tensor!r}: {name!r:.60} is not a file of this folder")
        names = files.setdefault(index.with_name(name), set())
        assert names is not None
        names.add(tensor)
    return dict(sorted(files.items()))


def _map(path: Path) -> MappedFile:
    try:
        return MappedFile(path)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path}: no such file, though it is part of this model; put all its files in one folder"
        ) from None

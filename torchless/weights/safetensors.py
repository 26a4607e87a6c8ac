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
from typing import Any, Literal, NoReturn

from torchless.errors import FormatError, ModelNotFoundError
from torchless.quants import Bytes
from torchless.weights.checkpoints import join_weights
from torchless.weights.draft_layers import without_draft_layers
from torchless.weights.encoder_parts import drop_positions, encoder_tensors
from torchless.weights.expert_stacks import stack_experts
from torchless.weights.gemma3n_parts import gemma3n_names
from torchless.weights.gemma4_parts import gemma4_names
from torchless.weights.gemma_parts import convert_norms
from torchless.weights.hf_config import quantisation_of, read_json, translate
from torchless.weights.latent_parts import split_latents
from torchless.weights.mapped_file import MappedFile
from torchless.weights.pieces import FilePiece
from torchless.weights.recurrent_parts import convert_recurrent
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import FileTensor, LastCopy, StoredTensor, StoredWeight
from torchless.weights.text_parts import text_tensors

__all__ = ["SafetensorsSource", "read_safetensors_header"]

_MAX_HEADER_BYTES = 100_000_000  # The limit of the format's own library.
_ELEMENT_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_INDEX_SUFFIX = ".safetensors.index.json"
_INDEX_NAME = "model" + _INDEX_SUFFIX


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
        UnsupportedError: a tensor type or a way of quantising that is not read, by name.

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
        self._files: list[MappedFile] = []
        self._weights: dict[str, StoredWeight] = {}
        self._copy = LastCopy()
        tensors = without_draft_layers(text_tensors(self._file_tensors()), metadata)
        tensors = encoder_tensors(tensors, metadata)
        weights = drop_positions(join_weights(tensors, quantisation_of(config), tied=tied), metadata)
        weights = convert_norms(split_latents(stack_experts(weights), metadata), metadata)
        weights = gemma3n_names(gemma4_names(weights, metadata), metadata)
        for weight in convert_recurrent(weights, metadata):
            other = self._weights.setdefault(weight.info.name, weight)
            if other is not weight:
                raise FormatError(
                    f"{weight.origin.file.path}: {weight.origin.name!r} and {other.origin.name!r} (in "
                    f"{other.origin.file.path.name}) are both tensor {weight.info.name!r}"
                )
        self.tensors = MappingProxyType({name: weight.info for name, weight in self._weights.items()})

    def raw(self, name: str) -> Bytes:
        """The stored bytes of a tensor, read-only: a zero-copy view, aligned to 8 bytes at least, or a copy where
        the file holds a type that is decoded."""
        weight = self._weights[name]
        return weight.raw() if weight.is_view else self._copy.get(name, weight.raw)

    def pieces(self, name: str) -> tuple[FilePiece, ...]:
        """Where a tensor lies: one piece, or one for each expert of a stack; nothing for what is decoded. See
        `pieces.SourceOfPieces`."""
        return self._weights[name].pieces()

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the operating system take back the memory behind a tensor, or behind `num_bytes` bytes of it from
        `start` on; a later read loads it again."""
        weight = self._weights[name]
        if not weight.is_view:
            self._copy.drop(name, None if num_bytes is None else start + num_bytes)
            return
        stored = weight.origin.stored
        rest = stored.num_bytes - start if num_bytes is None else num_bytes
        weight.origin.file.drop_pages(stored.offset + start, rest)

    def _file_tensors(self) -> dict[str, FileTensor]:
        """All tensors of all files under their own names."""
        tensors: dict[str, FileTensor] = {}
        for path, wanted in _weight_files(self.path).items():
            file = _map(path)
            self._files.append(file)
            found = read_safetensors_header(file)
            missing = (wanted or set()) - found.keys()
            if missing:
                raise FormatError(
                    f"{path}: tensor {min(missing)!r} is missing, though the index says it is here"
                )
            for name, stored in found.items():
                if name in tensors:
                    raise FormatError(f"{path}: tensor {name!r} is in {tensors[name].file.path.name} already")
                tensors[name] = FileTensor(name, file, stored)
        return tensors

    def close(self) -> None:
        """Lets go of the tensor data; it is unmapped once the last view is gone."""
        self._copy = LastCopy()
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

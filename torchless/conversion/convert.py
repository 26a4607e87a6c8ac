"""Converts a model: Hugging Face folder to GGUF, GGUF to folder, and either to itself (other type, split, merged)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchless import quants
from torchless.adapters.binding import bind_adapters
from torchless.adapters.conversion import convert_adapter
from torchless.adapters.files import is_adapter_path
from torchless.adapters.merged import MergedSource
from torchless.adapters.open import ScaledPath, scaled_paths
from torchless.backends.base import Progress
from torchless.config import ModelConfig
from torchless.conversion.configuration import (
    ROPE_FACTORS,
    VECTOR_TYPE_KEY,
    configuration_files,
)
from torchless.conversion.destination import check_destination, copy_tokenizer, new_folder
from torchless.conversion.expert_views import ExpertsApart, ExpertsJoined
from torchless.conversion.families import Family, find_conversion
from torchless.conversion.gguf_view import as_gguf
from torchless.conversion.tokenizer_files import write_tokenizer_files
from torchless.conversion.views import ConvertedView, is_norm
from torchless.errors import InvalidRequestError, UnsupportedError
from torchless.long_rope import FACTOR_TENSORS
from torchless.models import record_plan
from torchless.processors import usable_cores
from torchless.quantization.choice import Exceptions, check_sources, choose_types, model_facts
from torchless.quantization.encode import PLAIN_TYPES, check_writable, encode_tensor
from torchless.quantization.recipes import RECIPES, find_recipe
from torchless.quants import Bytes
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_parts import typed_metadata, write_gguf_parts
from torchless.weights.gguf_writer import TensorData
from torchless.weights.names import hugging_face_name
from torchless.weights.open import open_source
from torchless.weights.safetensors import SafetensorsSource
from torchless.weights.safetensors_writer import write_safetensors
from torchless.weights.shards import shard_bytes
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.text_parts import text_settings

__all__ = ["convert"]

_log = logging.getLogger("torchless")

KEEP = "keep"


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    type: str = KEEP,  # noqa: A002  # the name of the flag
    config: str | Path | None = None,
    split_max_size: int | str | None = None,
    lora: Any = None,
    base: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes a model in another file format. Memory stays at some hundred megabytes whatever the model's size.

    Args:
        src: a Hugging Face folder (or one of its files), or a GGUF file (any part of a split one).
        dst: a file name ending in ``.gguf``, or a folder to fill with safetensors and configuration files.
        type: ``"keep"``, a float type (``"F32"``, ``"F16"``, ``"BF16"``), or, for GGUF, a quantisation recipe
            (``"Q4_K_M"``). Vectors are F32 in GGUF files in any case. "keep" decodes quantised tensors to F32 for
            safetensors, which have no such types.
        config: the configuration of a single safetensors file, if it is not the config.json beside it.
        split_max_size: the most bytes of tensors in one file (``"2G"``); None writes one file and merges parts.
        lora: LoRA adapters to merge into the weights, as `torchless.load` takes them. Sums are made in float32 and
            stored in the tensor's own type, or in `type`.
        base: where `src` is an adapter itself, the model that it belongs to: see `adapters.conversion`.
        threads: threads of the quantisers; all cores if left out.
        progress: called with (source bytes done, of all).

    Returns:
        The files of weights that were written.

    Raises:
        FormatError: the source is broken.
        InvalidRequestError: an unknown type, or one that the format lacks; a destination that is the source.
        UnsupportedError: an architecture, setting or tokenizer that cannot be said in the other format.
        OSError: a file cannot be written. Nothing is left behind.

    Example:
        >>> import tempfile
        >>> from torchless.loading import BUILT_IN_MODEL
        >>> folder = Path(tempfile.mkdtemp())
        >>> [path.name for path in convert(BUILT_IN_MODEL, folder / "hf", type="BF16")]
        ['model.safetensors']
        >>> [path.name for path in convert(folder / "hf", folder / "stories.gguf")]
        ['stories.gguf']
    """
    dst = Path(dst)
    if is_adapter_path(src):
        _check_for_adapter(src, type=type, config=config, split_max_size=split_max_size, lora=lora)
        return [convert_adapter(Path(src), dst, base)]
    if base is not None:
        raise InvalidRequestError(
            f"base is the model of an adapter, but {src} is a model itself: leave it out"
        )
    to_gguf = dst.suffix == ".gguf"
    if not to_gguf and dst.suffix in (".safetensors", ".bin"):
        raise InvalidRequestError(f"{dst}: the destination is a file name ending in .gguf, or a folder")
    max_bytes = shard_bytes(str(split_max_size)) if split_max_size is not None else None
    _check_type(type, to_gguf=to_gguf)
    source = open_source(src) if config is None else SafetensorsSource(src, config)
    try:
        check_destination(source, dst, to_gguf=to_gguf)
        num_threads = usable_cores() if threads is None else threads
        job = _Job(source, num_threads, progress, max_bytes, scaled_paths(lora))
        return job.to_gguf(dst, type.upper()) if to_gguf else job.to_folder(dst, type.upper())
    finally:
        source.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """One conversion."""

    source: WeightSource
    threads: int
    progress: Progress | None
    max_bytes: int | None
    lora: tuple[ScaledPath, ...] = ()

    def to_gguf(self, dst: Path, wanted: str) -> list[Path]:
        """Writes a GGUF file or its parts."""
        view: WeightSource = self.source
        if isinstance(self.source, SafetensorsSource):
            view = as_gguf(self.source)
        metadata = dict(typed_metadata(view))
        chosen = _kept_types(view)
        is_gguf, view = isinstance(view, GgufSource), self._merged(view, chosen)
        if wanted != KEEP.upper():
            recipe = find_recipe(wanted)
            chosen = choose_types(view, recipe, model_facts(view), Exceptions())
            check_sources(view, chosen, requantize=wanted in PLAIN_TYPES)
            metadata["general.file_type"] = np.uint32(recipe.file_type)
        elif not is_gguf:
            metadata["general.file_type"] = np.uint32(RECIPES[_main_type(chosen, view)].file_type)
        metadata.setdefault("general.quantization_version", np.uint32(2))
        dst.parent.mkdir(parents=True, exist_ok=True)
        return write_gguf_parts(dst, metadata, list(self._tensors(view, chosen, {})), self.max_bytes)

    def to_folder(self, dst: Path, wanted: str) -> list[Path]:
        """Fills a folder with weights, configuration and tokenizer."""
        _, config = record_plan(self.source)
        architecture = str(self.source.metadata["general.architecture"])
        family = find_conversion(architecture, has_experts=config.routing is not None)
        if family.is_one_way:
            raise UnsupportedError(
                f"{self.source.path}: torchless writes {architecture} models as GGUF files only: folders hold their "
                f"tensors or settings in another arrangement"
            )
        view, files = self._folder_view(wanted, family, config)
        kept = _kept_types(view)
        view = self._merged(view, kept)
        if config.routing is not None:
            view = ExpertsApart(view) if family.experts == "apart" else ExpertsJoined(view)
        names = {name: hugging_face_name(name, family.names) or name for name in view.tensors}
        chosen = {}
        for info in view.tensors.values():
            stored = kept.get(info.name, info.type)
            chosen[info.name] = stored if stored in PLAIN_TYPES else "F32"
            if wanted != KEEP.upper():
                chosen[info.name] = wanted
        tensors = list(self._tensors(view, chosen, names))
        with new_folder(dst) as folder:
            for name, content in files.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (folder / name).write_text(text, encoding="utf-8")
            if isinstance(self.source, SafetensorsSource):
                copy_tokenizer(self.source, folder)
            else:
                length = files["config.json"].get("max_position_embeddings", 2048)
                write_tokenizer_files(folder, view.metadata, length)
            paths = write_safetensors(folder, tensors, self.max_bytes)
        return [dst / path.name for path in paths]

    def _merged(self, view: WeightSource, kept: Mapping[str, str]) -> WeightSource:
        """The view with adapters merged in. Their tensors are F32 in it, whatever type they shall have in the end."""
        if not self.lora:
            return view
        plan, _ = record_plan(self.source)
        bound = bind_adapters(plan, view, self.lora)
        for name in bound.parts:
            check_writable(kept[name])
        return MergedSource(view, bound)

    def _folder_view(
        self, wanted: str, family: Family, config: ModelConfig
    ) -> tuple[WeightSource, dict[str, dict[str, Any]]]:
        """The model as a folder holds it, and the configuration files."""
        main = _main_type({info.name: info.type for info in self.source.tensors.values()}, self.source)
        float_type = wanted if wanted in PLAIN_TYPES else main if main in PLAIN_TYPES else "F32"
        if isinstance(self.source, SafetensorsSource) and not family.centred_norms:
            return self.source, _changed_files(self.source, float_type)
        vector_type = _vector_type(self.source, float_type, family)
        view = ConvertedView(
            self.source,
            family,
            self.source.metadata,
            layout="half",
            vector_type=vector_type,
            dropped=(ROPE_FACTORS, *FACTOR_TENSORS.values()),
        )
        if isinstance(self.source, SafetensorsSource):
            return view, _changed_files(self.source, float_type)
        settings, generation = configuration_files(self.source, family, config, float_type)
        files = {"config.json": settings}
        if generation:
            files["generation_config.json"] = generation
        return view, files

    def _tensors(
        self, view: WeightSource, chosen: Mapping[str, str], names: Mapping[str, str]
    ) -> Iterator[TensorData]:
        """Every tensor under its new name, with its bytes still to come."""
        total = sum(info.num_bytes for info in view.tensors.values())
        done = 0
        for info in view.tensors.values():
            new = chosen[info.name]
            chunks = self._encoded(view, info, new, done, total)
            yield names.get(info.name, info.name), info.shape, new, chunks
            done += info.num_bytes

    def _encoded(
        self, view: WeightSource, info: TensorInfo, new: str, done: int, total: int
    ) -> Iterator[Bytes]:
        stored = quants.stored_type(new)
        assert stored is not None, new
        size, written = math.prod(info.shape) // stored.block_elements * stored.block_bytes, 0
        for chunk in encode_tensor(view, info, new, None, self.threads):
            yield chunk
            written += chunk.nbytes
            if self.progress is not None:
                self.progress(done + info.num_bytes * written // max(size, 1), total)
        view.drop_pages(info.name)


def _check_for_adapter(src: str | Path, **others: Any) -> None:
    """Raises InvalidRequestError for what makes no sense where an adapter is converted."""
    for name, value in others.items():
        if value not in (None, KEEP):
            raise InvalidRequestError(f"{src} is an adapter, for which {name} means nothing: leave it out")


def _check_type(name: str, *, to_gguf: bool) -> None:
    if name.lower() == KEEP:
        return
    if not to_gguf and name.upper() not in PLAIN_TYPES:
        raise InvalidRequestError(
            f"type {name!r}: safetensors files hold {', '.join(PLAIN_TYPES)}, or 'keep'"
        )
    recipe = find_recipe(name)
    check_writable(recipe.base)


def _kept_types(view: WeightSource) -> dict[str, str]:
    return {info.name: info.type for info in view.tensors.values()}


def _main_type(chosen: Mapping[str, str], view: WeightSource) -> str:
    """The type of most bytes among the matrices."""
    bytes_of: dict[str, int] = {}
    for info in view.tensors.values():
        if len(info.shape) > 1:
            bytes_of[chosen[info.name]] = bytes_of.get(chosen[info.name], 0) + info.num_bytes
    return max(bytes_of, key=lambda name: bytes_of[name], default="F32")


def _vector_type(source: WeightSource, float_type: str, family: Family) -> str:
    """Type of vectors in a folder: what they had before they became F32 in a GGUF file.

    That is noted in the file, else `float_type`; F32 where it would not hold every vector exactly.
    """
    wanted = source.metadata.get(VECTOR_TYPE_KEY, float_type)
    if wanted not in PLAIN_TYPES or wanted == "F32":
        return "F32"
    target = quants.by_name(wanted)
    for info in source.tensors.values():
        if len(info.shape) < 2 and info.name not in (ROPE_FACTORS, *FACTOR_TENSORS.values()):
            values = quants.by_name(info.type).decode(source.raw(info.name)).reshape(-1)
            if family.centred_norms and is_norm(info.name):
                values = values - np.float32(1)
            if not np.array_equal(target.decode(target.encode(values)), values):
                return "F32"
    return str(wanted)


def _changed_files(source: SafetensorsSource, float_type: str) -> dict[str, dict[str, Any]]:
    """The configuration files of a folder whose weights get another type."""
    settings = text_settings(json.loads(source.config_path.read_bytes()))
    settings.pop("quantization_config", None)
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[float_type]
    settings["dtype" if "dtype" in settings else "torch_dtype"] = dtype
    files = {"config.json": settings}
    if source.generation_path is not None:
        files["generation_config.json"] = json.loads(source.generation_path.read_bytes())
    return files

"""Quantises a model file, tensor by tensor: `torchless.quantize`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from torchless import quants
from torchless.backends.base import Progress
from torchless.errors import InvalidRequestError
from torchless.processors import usable_cores
from torchless.quantization.budget import Candidate, choose_within, sensitivity, types_to_try
from torchless.quantization.choice import Exceptions, check_sources, choose_types, model_facts, quantizable
from torchless.quantization.encode import check_writable, encode_tensor
from torchless.quantization.importance import ImportanceMatrix, check_belongs, read_importance
from torchless.quantization.measure import is_measurable, sample_rows
from torchless.quantization.recipes import Recipe, find_recipe, fitting_type
from torchless.quants import Bytes, Floats
from torchless.weights.gguf_writer import TensorData, TypedValue, write_gguf
from torchless.weights.open import open_source
from torchless.weights.safetensors import SafetensorsSource
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["Quantization", "QuantizedTensor", "parse_size", "quantize"]

_MIXED_FILE_TYPE = 1024  # "guessed": what llama.cpp writes for a file that no recipe describes


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """What became of one tensor.

    Attributes:
        name, shape: rows first.
        source_type, type: before and after.
        source_bytes, num_bytes: before and after.
        error: relative error on a sample of rows, where it was measured (a dry run, or a target).
    """

    name: str
    shape: tuple[int, ...]
    source_type: str
    type: str
    source_bytes: int
    num_bytes: int
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Quantization:
    """The result of `quantize`.

    Attributes:
        path: the file that was (or, in a dry run, would be) written.
        tensors: in file order.
    """

    path: Path
    tensors: tuple[QuantizedTensor, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over all tensors."""
        return 8 * self.num_bytes / max(1, sum(math.prod(tensor.shape) for tensor in self.tensors))


def quantize(
    src: str | Path,
    dst: str | Path,
    recipe: str | None = None,
    *,
    tensor_types: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    pure: bool = False,
    target_size: int | str | None = None,
    target_bpw: float | None = None,
    imatrix: str | Path | None = None,
    threads: int | None = None,
    requantize: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Quantization:
    """Writes a model with smaller weights. Memory stays at some hundred megabytes whatever the model's size.

    Args:
        src: a GGUF file or a Hugging Face folder with F32, F16 or BF16 weights.
        dst: the GGUF file to write; it appears under its name only when it is complete.
        recipe: ``"Q4_K_M"`` and so on (`recipes.RECIPES`); left out with a target.
        tensor_types: exceptions: a regular expression found in the tensor's name -> block type; the first that
            matches holds.
        output_tensor_type: block type of the output projection.
        token_embedding_type: block type of the token embedding.
        pure: every matrix gets the recipe's base type.
        target_size: bytes that the tensors may take (or ``"4GiB"``): types are chosen by measured error.
        target_bpw: the same, as bits per weight.
        imatrix: importance of columns, from `torchless imatrix` or llama.cpp.
        threads: threads of the quantisers; all cores if left out.
        requantize: allow quantising tensors that are quantised already.
        dry_run: choose and measure, and write nothing.
        progress: called with (source bytes done, of all).

    Raises:
        InvalidRequestError: an unknown recipe or type, both or neither of recipe and target, a target that is too
            small, or a source that is quantised already.
        FormatError: the source is broken, or holds weights that are not finite.
        OSError: the file cannot be written. Nothing is left behind.

    Example:
        >>> import tempfile, torchless
        >>> from torchless.bench.synthetic import write_synthetic
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_synthetic(folder / "model.gguf", "test", "BF16")
        >>> torchless.quantize(folder / "model.gguf", folder / "small.gguf", "Q4_K_M").tensors[0].type
        'Q6_K'
    """
    target = _target(recipe, target_size, target_bpw)
    patterns = tuple(tensor_types.items()) if isinstance(tensor_types, Mapping) else tuple(tensor_types)
    exceptions = Exceptions(patterns, output_tensor_type, token_embedding_type, pure)
    num_threads = usable_cores() if threads is None else threads
    if num_threads < 1:
        raise InvalidRequestError(f"threads is {threads}; expected at least 1")
    source: WeightSource = open_source(src)
    dst = Path(dst)
    try:
        if isinstance(source, SafetensorsSource):
            from torchless.conversion.gguf_view import as_gguf

            source = as_gguf(source)
        if not dry_run and dst.exists() and dst.samefile(source.path):
            raise InvalidRequestError(f"{dst}: source and destination are the same file; write to another")
        matrix = None if imatrix is None else read_importance(imatrix)
        if matrix is not None:
            check_belongs(matrix, list(quantizable(source)), model_facts(source).num_layers)
        job = _Job(source, matrix, num_threads, find_recipe(recipe or "F16"))
        chosen, errors = job.choose(exceptions, target, measure=dry_run)
        check_sources(source, chosen, requantize=requantize)
        for name in set(chosen.values()) - {info.type for info in source.tensors.values()}:
            check_writable(name)
        if not dry_run:
            write_gguf(dst, job.metadata(mixed=target is not None), list(job.tensors(chosen, progress)))
        return Quantization(dst, tuple(_result(source, chosen, errors)))
    finally:
        source.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """One model on its way."""

    source: WeightSource
    matrix: ImportanceMatrix | None
    threads: int
    recipe: Recipe

    def choose(
        self, exceptions: Exceptions, target: _Target | None, *, measure: bool
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Type of each tensor, and the errors that were measured."""
        facts = model_facts(self.source, has_importance=self.matrix is not None)
        if target is None:
            chosen = choose_types(self.source, self.recipe, facts, exceptions)
            return chosen, self._errors(chosen) if measure else {}
        chosen = {info.name: info.type for info in self.source.tensors.values()}
        fixed = sum(info.num_bytes for info in self.source.tensors.values())
        candidates: dict[str, list[Candidate]] = {}
        errors: dict[tuple[str, str], float] = {}
        for info in quantizable(self.source):
            is_output = info.name == "output.weight" or (facts.tied and info.name == "token_embd.weight")
            wanted = exceptions.type_of(info.name, is_output=is_output)
            fixed -= info.num_bytes
            sample = sample_rows(self.source, info, self._importance(info))
            factor = sensitivity(info.name, tied=facts.tied)
            options = candidates.setdefault(info.name, [])
            columns = info.shape[-1]
            names = (fitting_type(wanted, columns),) if wanted else types_to_try(info.type, columns)
            for name in names:
                error = errors[info.name, name] = sample.relative_error(name, self.threads)
                options.append(Candidate(name, _num_bytes(name, info.shape), factor * error))
        num_weights = sum(math.prod(info.shape) for info in self.source.tensors.values())
        chosen.update(choose_within(candidates, target.num_bytes(num_weights) - fixed))
        return chosen, {name: errors[name, chosen[name]] for name in candidates}

    def _errors(self, chosen: Mapping[str, str]) -> dict[str, float]:
        found = {}
        for info in quantizable(self.source):
            if chosen[info.name] != info.type and is_measurable(chosen[info.name]):
                sample = sample_rows(self.source, info, self._importance(info))
                found[info.name] = sample.relative_error(chosen[info.name], self.threads)
        return found

    def _importance(self, info: TensorInfo) -> Floats | None:
        return None if self.matrix is None else self.matrix.of(info.name)

    def metadata(self, *, mixed: bool) -> dict[str, Any]:
        """The source's metadata, with what says how the file was quantised."""
        kept: dict[str, Any] = dict(_typed_metadata(self.source))
        kept["general.file_type"] = np.uint32(_MIXED_FILE_TYPE if mixed else self.recipe.file_type)
        kept["general.quantization_version"] = np.uint32(2)
        if self.matrix is not None:
            kept["quantize.imatrix.file"] = "" if self.matrix.path is None else self.matrix.path.name
            kept["quantize.imatrix.dataset"] = ", ".join(self.matrix.datasets)
            kept["quantize.imatrix.entries_count"] = np.uint32(len(self.matrix.means))
            kept["quantize.imatrix.chunks_count"] = np.uint32(self.matrix.chunks)
        return kept

    def tensors(self, chosen: Mapping[str, str], progress: Progress | None) -> Iterator[TensorData]:
        """Every tensor with its bytes still to come."""
        total = sum(info.num_bytes for info in self.source.tensors.values())
        done = 0
        for info in self.source.tensors.values():
            yield (
                info.name,
                info.shape,
                chosen[info.name],
                self._encoded(info, chosen[info.name], done, total, progress),
            )
            done += info.num_bytes

    def _encoded(
        self, info: TensorInfo, type_name: str, done: int, total: int, progress: Progress | None
    ) -> Iterator[Bytes]:
        size, written = _num_bytes(type_name, info.shape), 0
        for chunk in encode_tensor(self.source, info, type_name, self._importance(info), self.threads):
            yield chunk
            written += chunk.nbytes
            if progress is not None:
                progress(done + info.num_bytes * written // max(size, 1), total)


@dataclass(frozen=True, slots=True)
class _Target:
    size: int | None
    bits_per_weight: float | None

    def num_bytes(self, num_weights: int) -> int:
        if self.size is not None:
            return self.size
        assert self.bits_per_weight is not None
        return int(self.bits_per_weight * num_weights / 8)


def _target(recipe: str | None, size: int | str | None, bits: float | None) -> _Target | None:
    given = sum(value is not None for value in (recipe, size, bits))
    if given != 1:
        raise InvalidRequestError(
            f"{'no' if given == 0 else 'more than one'} recipe or target was given; expected one of a recipe "
            f"(Q4_K_M), a target size (4GiB) and a target in bits per weight (4.5)"
        )
    if recipe is not None:
        return None
    if bits is not None and not 1 <= bits <= 32:
        raise InvalidRequestError(f"target_bpw is {bits}; expected bits per weight between 1 and 32")
    return _Target(None if size is None else parse_size(size), bits)


def parse_size(size: int | str) -> int:
    """Bytes of ``"4GiB"``, ``"3.5 GB"``, ``"700M"`` or a number.

    >>> parse_size("1.5KiB"), parse_size("2 MB")
    (1536, 2000000)
    """
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)(b?)\s*", size, re.IGNORECASE)
    if match is None:
        raise InvalidRequestError(
            f"{size!r} is not a size; expected a number with KiB, MiB, GiB, KB, MB or GB"
        )
    # As sizes of memory go, a bare letter counts in powers of 1024.
    base = 1000 if match[4] and not match[3] else 1024
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * cast(int, base**power))


def _num_bytes(type_name: str, shape: tuple[int, ...]) -> int:
    stored = quants.stored_type(type_name)
    assert stored is not None
    return math.prod(shape) // stored.block_elements * stored.block_bytes


def _result(
    source: WeightSource, chosen: Mapping[str, str], errors: Mapping[str, float]
) -> Iterator[QuantizedTensor]:
    for info in source.tensors.values():
        new = chosen[info.name]
        yield QuantizedTensor(
            info.name,
            info.shape,
            info.type,
            new,
            info.num_bytes,
            _num_bytes(new, info.shape),
            errors.get(info.name),
        )


def _typed_metadata(source: WeightSource) -> Iterator[tuple[str, Any]]:
    """Metadata with the very types of the source's file; what only splits need is left out."""
    types = getattr(source, "value_types", {})
    for key, value in source.metadata.items():
        if key.startswith("split."):
            continue
        is_scalar = (key in types and not isinstance(value, Sequence | np.ndarray)) or isinstance(value, str)
        yield key, TypedValue(types[key], value) if is_scalar and key in types else value

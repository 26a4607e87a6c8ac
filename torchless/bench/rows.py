"""Rows of results: flat dictionaries with llama-bench's field names, and ours beside them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchless.bench.generation import Measurement
from torchless.bench.machine import Roofs, commit_of, cpu_name
from torchless.bench.work import Work
from torchless.errors import InvalidRequestError
from torchless.loading import LoadedModel

__all__ = ["Row", "case_key", "common_fields", "generation_row", "load_rows", "save_rows"]

Row = dict[str, Any]

_KEY = (
    *("kind", "model_type", "n_prompt", "n_gen", "n_depth", "n_sequences", "is_shared"),
    *("n_threads", "type_k", "type_v", "activations", "fast", "lazy", "isa"),
)


def common_fields(loaded: LoadedModel, model_name: str) -> Row:
    """What every row says about the code, the machine and the model."""
    import torchless
    from torchless.backends.cpu.extension import load_extension

    facts = loaded.describe()
    options = loaded.executor.options
    types = facts["tensor_types"]
    return {
        "build_commit": commit_of(),
        "engine": f"torchless {torchless.__version__}",
        "cpu_info": cpu_name(),
        "isa": load_extension().isa(),
        "backends": facts["backend"],
        "model_filename": facts["path"],
        "model_type": model_name,
        "model_size": facts["file_bytes"],
        "model_n_params": facts["num_parameters"],
        "tensor_types": types,
        "n_batch": options.max_batch_tokens,
        "n_threads": options.num_threads,
        "type_k": getattr(options, "kv_type_k", None) or options.kv_type,
        "type_v": getattr(options, "kv_type_v", None) or options.kv_type,
        "activations": options.activations,
        "fast": options.fast,
        "lazy": options.lazy,
        "test_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def generation_row(kind: str, measured: Measurement, common: Row, roofs: Roofs) -> Row:
    """The row of one case."""
    case = measured.case
    speeds = [case.num_tokens / seconds for seconds in measured.seconds]
    samples_ns = [round(seconds * 1e9) for seconds in measured.seconds]
    cpu = sum(measured.cpu_seconds) / sum(measured.seconds) / roofs.num_threads
    return {
        **common,
        "kind": kind,
        "test": case.name,
        "n_prompt": case.prompt_tokens,
        "n_gen": case.new_tokens,
        "n_depth": case.depth,
        "n_sequences": case.num_sequences,
        "is_shared": case.is_shared,
        "avg_ns": round(statistics.fmean(samples_ns)),
        "stddev_ns": round(_deviation(samples_ns)),
        "avg_ts": statistics.fmean(speeds),
        "stddev_ts": _deviation(speeds),
        "median_ts": statistics.median(speeds),
        "samples_ns": samples_ns,
        "samples_ts": speeds,
        **roof_fields(measured.work, statistics.median(measured.seconds), roofs),
        "cpu_utilisation": cpu,
        "logits_hash": measured.hashes[0],
        "is_repeatable": len(set(measured.hashes)) == 1,
    }


def roof_fields(work: Work, seconds: float, roofs: Roofs) -> Row:
    """What `work` done in `seconds` is, compared with what the machine can do."""
    return {
        "read_bytes": work.read_bytes,
        "operations": work.num_operations,
        "operations_by_kind": work.operations,
        "read_gb_per_second": work.read_bytes / seconds / 1e9,
        "read_share": roofs.read_seconds(work) / seconds,
        "gop_per_second": work.num_operations / seconds / 1e9,
        "compute_share": roofs.compute_seconds(work) / seconds,
        "roof_read_gb_per_second": roofs.read_bytes_per_second / 1e9,
        **{f"roof_{kind}_gop_per_second": peak / 1e9 for kind, peak in roofs.operations_per_second.items()},
    }


def case_key(row: Row) -> tuple[Any, ...]:
    """What must be equal for two rows to be comparable. Old rows are of exact products of int8 and loaded weights."""
    return tuple({"activations": "int8", "fast": False, "lazy": "off", **row}.get(name) for name in _KEY)


def save_rows(path: str, rows: Sequence[Row]) -> None:
    """Writes rows as JSON. Raises OSError."""
    Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def load_rows(path: str) -> list[Row]:
    """Reads what `save_rows` wrote.

    Raises:
        InvalidRequestError: it is not such a file.
    """
    try:
        rows: list[Row] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}; expected a file of --save") from None
    is_rows = isinstance(rows, list) and all(isinstance(row, dict) and "avg_ts" in row for row in rows)
    if not is_rows:
        raise InvalidRequestError(f"{path} is not a file of --save: expected a list of rows with avg_ts")
    return rows


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0

"""The error that recipes make on a model's weights, measured on samples and kept on disk, since it takes seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from torchless.planning.sources import RecipeView, ShapeSource
from torchless.quantization.budget import sensitivity
from torchless.quantization.choice import model_facts, quantizable
from torchless.quantization.measure import Sample, is_measurable, sample_rows
from torchless.text.tokenizer_cache import cache_folder
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["measure_errors"]

_LAYERS = 4  # sampled, spread evenly
_VERSION = b"1"
_SYNTHETIC_ROWS = 64


def measure_errors(
    source: WeightSource,
    views: Mapping[str, RecipeView],
    threads: int,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Relative error of each view's weights: the root of the mean squared error over that of the weights.

    The mean is over the matrices of some layers, by their size and by how much the output hangs on them
    (`budget.sensitivity`). What a quantised source has lost already is not counted: it is the truth here.

    Args:
        source: the model in its own types.
        views: by name, as each recipe would store it.

    Raises:
        FormatError: a sampled row holds a weight that is not finite.
    """
    tied = model_facts(source).tied
    total = dict.fromkeys(views, 0.0)
    weight = 0.0
    for info in _sampled(source):
        progress(f"measuring errors: {info.name}")
        wanted = {view.tensors[info.name].type for view in views.values()} - {info.type}
        errors = _errors_of(_sample(source, info), sorted(filter(is_measurable, wanted)), threads)
        share = math.prod(info.shape) * sensitivity(info.name, tied=tied)
        share *= _layers_per_sample(source, info)
        weight += share
        for name, view in views.items():
            total[name] += share * errors.get(view.tensors[info.name].type, 0.0)
    return {name: math.sqrt(value / max(weight, 1e-300)) for name, value in total.items()}


def _sampled(source: WeightSource) -> list[TensorInfo]:
    """The matrices of some layers, and those outside layers."""
    num_layers = model_facts(source).num_layers
    chosen = {round(i) for i in np.linspace(0, max(num_layers - 1, 0), _LAYERS)}
    return [info for info in quantizable(source) if _layer(info.name) in (None, *chosen)]


def _layers_per_sample(source: WeightSource, info: TensorInfo) -> float:
    """How many layers one that was sampled stands for."""
    num_layers = model_facts(source).num_layers
    return 1.0 if _layer(info.name) is None else max(num_layers / _LAYERS, 1.0)


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and len(parts) > 2 and parts[1].isdigit() else None


def _sample(source: WeightSource, info: TensorInfo) -> Sample:
    if not isinstance(source, ShapeSource):
        return sample_rows(source, info, None)
    generator = np.random.Generator(np.random.PCG64(0))
    values = generator.standard_normal((_SYNTHETIC_ROWS, info.shape[-1]), np.float32)
    return Sample(info.name, values, None)


def _errors_of(sample: Sample, types: Sequence[str], threads: int) -> dict[str, float]:
    """Error of each type on a sample: from the cache, or measured and stored there."""
    digest = blake2b(_VERSION, digest_size=20)
    digest.update(sample.values.tobytes())
    path = cache_folder() / "errors" / f"{digest.hexdigest()}.json"
    known = _read(path)
    missing = [name for name in types if name not in known]
    if missing:
        known |= {name: sample.relative_error(name, threads) for name in missing}
        with suppress(OSError, RuntimeError):  # no room, no right to write: it is measured again next time
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(known))
            temporary.replace(path)
    return {name: known[name] for name in types}


def _read(path: Path) -> dict[str, float]:
    """What a cache file holds; nothing where it is absent or damaged."""
    with suppress(OSError, ValueError, AttributeError, RuntimeError):
        found = json.loads(path.read_text())
        if all(isinstance(value, float) and 0 <= value < math.inf for value in found.values()):
            return dict(found)
    return {}

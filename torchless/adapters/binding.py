"""Fits adapters to a model: names, shapes and architectures compared, rows put into the model's order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from torchless import quants
from torchless.adapters.adapter import Adapter, LowRank
from torchless.adapters.open import ScaledPath, open_adapter
from torchless.conversion.families import Family, find_conversion
from torchless.conversion.views import rotary_orders
from torchless.errors import FormatError, UnsupportedError
from torchless.plan import Linear, Plan
from torchless.quants import Floats
from torchless.weights.recurrent_parts import column_order, rows_of_parts
from torchless.weights.source import WeightSource
from torchless.weights.stored_weights import PLAIN, FileTensor

__all__ = ["BoundAdapters", "bind_adapters", "describe", "parts_for"]

_log = logging.getLogger("torchless")


@dataclass(frozen=True, slots=True)
class BoundAdapters:
    """Adapters that fit a model.

    Attributes:
        parts: by weight, all adapters' matrices side by side with every scale in b: the sum of all products is
            ``b @ a``, whose rank is the sum of their ranks.
        descriptions: what they are, as plain values.
    """

    parts: Mapping[str, tuple[Floats, Floats]]
    descriptions: tuple[dict[str, Any], ...]


def bind_adapters(plan: Plan, source: WeightSource, wanted: Sequence[ScaledPath]) -> BoundAdapters:
    """Opens adapters and fits them to a model.

    Raises:
        FormatError: an adapter is broken, or was made for another model.
        UnsupportedError: an adapter changes something that torchless does not adapt.
    """
    collected: dict[str, list[tuple[LowRank, float]]] = {}
    descriptions = []
    for path, scale in wanted:
        adapter = open_adapter(path)
        for name, part in parts_for(adapter, plan, source).items():
            collected.setdefault(name, []).append((part, scale))
        descriptions.append({**describe(adapter), "scale": scale})
    parts = {}
    for name, found in collected.items():
        a = np.concatenate([part.a for part, _ in found])
        b = [part.b * np.float64(part.scale * scale) for part, scale in found]
        parts[name] = (a, np.ascontiguousarray(np.concatenate(b, axis=1), np.float32))
    return BoundAdapters(parts, tuple(descriptions))


def describe(adapter: Adapter) -> dict[str, Any]:
    """An adapter as plain values."""
    return {
        "path": str(adapter.path),
        "format": adapter.format,
        "name": adapter.name,
        "ranks": list(adapter.ranks),
        "alpha": adapter.alpha,
        "num_weights": len(adapter.parts),
        "num_parameters": adapter.num_parameters,
    }


def parts_for(adapter: Adapter, plan: Plan, source: WeightSource) -> dict[str, LowRank]:
    """An adapter's matrices by weight, their rows as this model orders them."""
    architecture = str(source.metadata.get("general.architecture", ""))
    if adapter.architecture and adapter.architecture != architecture:
        raise FormatError(
            f"{adapter.path}: an adapter for models of the architecture {adapter.architecture!r}, but {source.path} is "
            f"{architecture!r}"
        )
    parts = _as_stored(adapter, source)
    linear = {op.weight for op in plan.ops if isinstance(op, Linear)}
    for name, part in parts.items():
        _check_part(adapter, name, part, linear, source)
    for name, copy in adapter.copies.items():
        _check_copy(adapter, name, copy, source)
    if adapter.rope_layout == source.rope_layout:
        return parts
    orders = rotary_orders(source, _family(adapter, plan, source, architecture), source.rope_layout)
    return {
        name: replace(part, b=part.b[orders[name]]) if name in orders else part
        for name, part in parts.items()
    }


def _as_stored(adapter: Adapter, source: WeightSource) -> dict[str, LowRank]:
    """An adapter's matrices for weights as plans have them: folders have some of delta-nets otherwise."""
    parts = dict(adapter.parts)
    if adapter.format != "peft":
        return parts
    for name, part in adapter.parts.items():
        pieces = name.split(".")
        kind = pieces[2] if name.startswith("blk.") else ""
        columns, rows = column_order(kind, source.metadata), rows_of_parts(kind, source.metadata)
        num_rows, num_columns = part.b.shape[0], part.a.shape[1]
        if columns is not None:
            _check_sizes(adapter, name, part, (num_rows, len(columns)), source)
            parts[name] = replace(part, a=np.ascontiguousarray(part.a[:, columns]))
        elif rows:
            _check_sizes(adapter, name, part, (sum(map(len, rows.values())), num_columns), source)
            del parts[name]
            for new, order in rows.items():
                parts[".".join((*pieces[:2], new, *pieces[3:]))] = replace(part, b=part.b[order])
    return parts


def _check_part(adapter: Adapter, name: str, part: LowRank, linear: set[str], source: WeightSource) -> None:
    info = source.tensors.get(name)
    if info is None and name == "output.weight" and "token_embd.weight" in source.tensors:
        raise UnsupportedError(
            f"{adapter.path}: the adapter changes the output layer, which {source.path} shares with its embedding; "
            f"torchless adapts output layers of their own only"
        )
    if "_exps." in name or (info is not None and len(info.shape) > 2):
        raise UnsupportedError(
            f"{adapter.path}: the adapter changes {name}, which belongs to experts; torchless adapts linear layers only"
        )
    if info is None and name.replace("kv_b", "k_b") in source.tensors:
        raise UnsupportedError(
            f"{adapter.path}: the adapter changes {name}, of which torchless keeps keys and values apart; "
            f"it adapts linear layers only"
        )
    if info is None:
        raise FormatError(
            f"{adapter.path}: the adapter changes {name}, which {source.path} does not have; it was made for another "
            f"model"
        )
    if name not in linear or name == "token_embd.weight":
        raise UnsupportedError(
            f"{adapter.path}: the adapter changes {name}, which is not a linear layer of this model; torchless adapts "
            f"linear layers only"
        )
    num_rows, num_columns = info.shape if len(info.shape) == 2 else (1, *info.shape)
    _check_sizes(adapter, name, part, (num_rows, num_columns), source)


def _check_sizes(
    adapter: Adapter, name: str, part: LowRank, expected: tuple[int, int], source: WeightSource
) -> None:
    found = part.b.shape[0], part.a.shape[1]
    if found != expected:
        raise FormatError(
            f"{adapter.path}: the adapter changes a {name} of {found[0]} x {found[1]}, but that of {source.path} is "
            f"{expected[0]} x {expected[1]}; it was made for another model"
        )


def _check_copy(adapter: Adapter, name: str, copy: FileTensor, source: WeightSource) -> None:
    """A weight that the adapter repeats must be the model's own: what differs was trained, or has other tokens."""
    info = source.tensors.get(name)
    if info is None:
        return  # shared with the embedding, which is repeated under its own name
    if info.type not in PLAIN and info.shape == copy.stored.shape:
        _log.warning(
            "%s repeats %s of its model; whether that is what %s has cannot be told, since it is quantised",
            adapter.path,
            name,
            source.path,
        )
        return
    if info.shape != copy.stored.shape or not np.array_equal(
        quants.by_name(info.type).encode(copy.floats().reshape(info.shape)).reshape(-1), source.raw(name)
    ):
        raise UnsupportedError(
            f"{adapter.path}: {copy.name} {copy.stored.shape} differs from {name} {info.shape} of {source.path}: "
            f"torchless does not replace weights as a whole"
        )


def _family(adapter: Adapter, plan: Plan, source: WeightSource, architecture: str) -> Family:
    """How the two formats of the model's family differ."""
    has_experts = any(name.endswith("_exps.weight") for name in plan.weight_names)
    try:
        return find_conversion(architecture, has_experts=has_experts)
    except UnsupportedError:
        kinds = "GGUF file" if source.format == "gguf" else "safetensors folder"
        raise UnsupportedError(
            f"{adapter.path}: torchless does not know how the rows of {architecture} models differ between the formats "
            f"of this adapter and of {source.path}, a {kinds}; use the model in the adapter's own format"
        ) from None

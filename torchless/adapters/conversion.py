"""Turns an adapter of the peft library into a GGUF adapter, which llama.cpp loads."""

from __future__ import annotations

from pathlib import Path

from torchless.adapters.adapter import Adapter
from torchless.adapters.binding import parts_for
from torchless.adapters.gguf_adapter import write_adapter
from torchless.adapters.open import open_adapter
from torchless.conversion.families import find_conversion
from torchless.conversion.views import ConvertedView
from torchless.errors import InvalidRequestError
from torchless.models import record_plan
from torchless.weights.open import open_source
from torchless.weights.source import WeightSource

__all__ = ["convert_adapter"]


def convert_adapter(src: Path, dst: Path, base: str | Path | None = None) -> Path:
    """Writes a GGUF adapter in F32.

    Args:
        src: a folder of the peft library.
        dst: a file name ending in ``.gguf``.
        base: the model that the adapter belongs to, in either format: it says how rows of queries and keys lie in its
            GGUF file, and is what the adapter is checked against. Left out: the folder that the adapter names.

    Raises:
        InvalidRequestError: no model is known, or `dst` is no name of a GGUF file.
        FormatError, UnsupportedError: the adapter is broken, does not fit the model, or cannot be applied.
    """
    if dst.suffix != ".gguf":
        raise InvalidRequestError(f"{dst}: an adapter is converted to a file name ending in .gguf")
    adapter = open_adapter(src)
    model = open_source(_base_of(adapter, base))
    try:
        plan, config = record_plan(model)
        architecture = str(model.metadata["general.architecture"])
        family = find_conversion(architecture, has_experts=config.routing is not None)
        view: WeightSource = model
        if model.format == "safetensors":
            view = ConvertedView(model, family, model.metadata, layout="interleaved", vector_type="F32")
        write_adapter(dst, adapter, architecture, parts_for(adapter, plan, view))
    finally:
        model.close()
    return dst


def _base_of(adapter: Adapter, base: str | Path | None) -> str | Path:
    """The model that an adapter belongs to."""
    if base is not None:
        return base
    if adapter.base and Path(adapter.base).exists():
        return Path(adapter.base)
    named = (
        f"the adapter names {adapter.base!r}, which is not here" if adapter.base else "the adapter names none"
    )
    raise InvalidRequestError(
        f"{adapter.path}: which model does it belong to? {named}: give it as base (--base MODEL)"
    )
